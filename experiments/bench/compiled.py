"""Batch norm as XLA compiles it for a TPU v5e and an H100, neither of which need be there.

Programs are compiled ahead of time and never run: what they move through memory and exchange is
read from what the compiler wrote (`hlo`), what they hold and how long it took is asked.
"""

import itertools
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any, NamedTuple, get_args

import jax
import jax.numpy as jnp
import pandas as pd

from experiments.bench import hlo, runner_programs
from experiments.bench.output import Report
from experiments.bench.programs import Cell, Placement, Program, Scale, build
from experiments.bench.rivals import JaxRival, Mode, find_rivals
from experiments.bench.targets import TITLES, Target, devices
from experiments.system.progress import announce

NAMES = ("jbn", "flax.linen", "flax.nnx")
RUNNER = "runner"
PROGRAMS = {
    "norm": "one norm",
    "dense": "Dense, norm, ReLU, per layer",
    "conv": "Conv, norm, ReLU, per layer",
    RUNNER: "the programs of make compare",
}
PLACEMENTS = {
    "one": "one device",
    "jit": "four, plain jit",
    "axis_name": "four, axis_name",
    "runs": "four, runs spread",
}
MIB = 2**20


class Selection(NamedTuple):
    """A selection of programs; an empty tuple stands for all of a kind."""

    targets: Sequence[Target] = ()
    programs: Sequence[str] = ()
    placements: Sequence[Placement] = ()
    dtypes: Sequence[str] = ()
    modes: Sequence[Mode] = ()
    names: Sequence[str] = ()

    def takes(self, program: str) -> bool:
        """Tells whether `program` is selected."""
        return not self.programs or program in self.programs


class Labels(NamedTuple):
    """Labels that tell a program from the others."""

    target: Target
    program: str
    placement: str
    dtype: str
    mode: str
    name: str

    @property
    def title(self) -> str:
        """The title of its table."""
        return f"{TITLES[self.target]}: {PROGRAMS[self.program]}"

    @property
    def row(self) -> str:
        """The row of its table, which it shares with its rivals."""
        return f"{PLACEMENTS[self.placement]}, {self.dtype}, {self.mode}"


class Job(NamedTuple):
    """A program to compile."""

    labels: Labels
    make: Callable[[], tuple[Any, tuple[Any, ...]]]
    """Gives it, jitted, and its arguments."""
    unit: int
    """Bytes to count in."""
    elements: int
    """Of x on each device; 0 where there is no x."""


class Compiled(NamedTuple):
    """A program as the compiler left it."""

    text: str
    """Its optimised HLO."""
    held: int
    """Bytes at once on each device, beside arguments and results."""
    seconds: float
    """Of CPU time, to compile it."""


def measure(selection: Selection, scale: Scale) -> Report:
    """Compiles what is selected with every batch norm, for every chip."""
    targets = selection.targets or get_args(Target)
    for target in targets:
        devices(target, 1)  # raises before minutes have gone
    failures: list[str] = []
    tables: dict[str, list[dict[str, Any]]] = {}
    for job in (job for target in targets for job in _jobs(target, selection, scale)):
        labels = job.labels
        announce(f"{labels.title}: {labels.row}, {labels.name}")
        try:
            compiled = compile_program(*job.make())
        except Exception as failure:  # must not cost the others their numbers
            reason = f"{type(failure).__name__}: {str(failure).partition(chr(10))[0]}"
            failures.append(f"Failed: {labels.title}: {labels.row}, {labels.name} ({reason})")
            continue
        counted = count(compiled, job.unit, job.elements)
        tables.setdefault(labels.title, []).append(labels._asdict() | counted)
    data = pd.DataFrame([row for rows in tables.values() for row in rows])
    shown = {title: table(rows) for title, rows in tables.items()}
    notes = [*_notes(scale), *failures]
    return Report("compiled", "Compiled for chips that are not here", data, shown, notes)


def _jobs(target: Target, selection: Selection, scale: Scale) -> Iterator[Job]:
    rivals = [r for r in find_rivals().rivals if r.name in (selection.names or NAMES)]
    cells = itertools.product(
        filter(selection.takes, get_args(Program)),
        selection.placements or get_args(Placement),
        selection.dtypes or ("float32", "bfloat16"),
        selection.modes or get_args(Mode),
    )
    for cell, rival in itertools.product(itertools.starmap(Cell, cells), rivals):
        if isinstance(rival, JaxRival):
            yield Job(
                Labels(target, *cell, rival.name),
                partial(make, cell, rival, target, scale),
                unit=scale.x_bytes * (1 if cell.program == "norm" else scale.layers),
                elements=scale.x_bytes // jnp.dtype(cell.dtype).itemsize,
            )
    if selection.takes(RUNNER):
        for number, placement in ((1, "one"), (4, "runs")):
            for network, jitted, arguments in runner_programs.make(devices(target, number)):
                labels = Labels(target, RUNNER, placement, "float32", jitted.__name__, network)
                yield Job(labels, lambda made=(jitted, arguments): made, unit=MIB, elements=0)


def make(cell: Cell, rival: JaxRival, target: Target, scale: Scale) -> tuple[Any, tuple[Any, ...]]:
    """Makes the program of `cell` with `rival`, jitted, and its arguments, for `target`."""
    function, arguments = build(cell, rival.apply, devices(target, cell.devices), scale)
    return jax.jit(function), arguments


def compile_program(jitted: Any, arguments: Sequence[Any]) -> Compiled:
    """Compiles what is jitted for the devices that its arguments name."""
    lowered = jitted.lower(*arguments)
    start = time.process_time()
    compiled = lowered.compile()
    seconds = time.process_time() - start
    held = compiled.memory_analysis().temp_size_in_bytes
    return Compiled(compiled.as_text(), held, seconds)


def count(compiled: Compiled, unit: int, elements: int) -> dict[str, Any]:
    """Returns the numbers of a program, bytes by `unit`: the ordinary way, and the other."""
    counted: dict[str, Any] = {
        "unit": unit,
        "held": compiled.held / unit,
        "seconds": compiled.seconds,
    }
    for way in get_args(hlo.Way):
        ran = hlo.kernels(compiled.text, way)
        suffix = "" if way == "ordinary" else f"_{way}"
        counted[f"moved{suffix}"] = hlo.moved(ran) / unit
        counted[f"kernels{suffix}"] = hlo.launched(ran)
        counted[f"collectives{suffix}"] = _written(hlo.collectives(ran))
        if elements:
            counted[f"float32_written{suffix}"] = hlo.written(ran, "f32", elements)
    return counted


def _written(collectives: Counter[tuple[str, int]]) -> str:
    """Writes collectives like "3 all-reduce (2 x 8 KiB, 12 KiB)"."""
    kinds: dict[str, Counter[str]] = {}
    for (kind, size), times in collectives.items():
        kinds.setdefault(kind, Counter())[_size(size)] += times
    return "; ".join(
        f"{sizes.total()} {kind} "
        f"({', '.join(size if n == 1 else f'{n} x {size}' for size, n in sizes.items())})"
        for kind, sizes in kinds.items()
    )


def _size(size: int) -> str:
    for unit, name in ((MIB, "MiB"), (1024, "KiB")):
        if size >= unit:
            return f"{size / unit:.3g} {name}"
    return f"{size} B"


def table(rows: Sequence[dict[str, Any]]) -> pd.DataFrame:
    """Returns the rows of one target and kind of program as they are read."""
    unit = "MiB" if rows[0]["program"] == RUNNER else "arrays"
    return pd.DataFrame([_shown(row, unit) for row in rows])


def _shown(row: dict[str, Any], unit: str) -> dict[str, str]:
    labels = Labels(*(row[name] for name in Labels._fields))
    other = {name: row[f"{name}_other"] for name in ("moved", "kernels", "collectives")}
    words = {
        "moved": f"{other['moved']:.2f} {unit}",
        "kernels": f"{other['kernels']} kernels",
        "collectives": other["collectives"] or "no collectives",
    }
    return {
        "program": labels.row,
        "": labels.name,
        f"{unit} moved": f"{row['moved']:.2f}",
        f"{unit} held": f"{row['held']:.2f}",
        "kernels": str(row["kernels"]),
        "collectives": row["collectives"] or "none",
        "CPU s to compile": f"{row['seconds']:.1f}",
        "the other way": "; ".join(words[name] for name in words if other[name] != row[name]),
    }


def _notes(scale: Scale) -> list[str]:
    return [
        "Nothing ran. Moved: what kernels read and write in main memory on each device, by the "
        f"size of its x, {scale.x_bytes // MIB} MiB: a TPU keeps smaller arrays on its chip (128 "
        "MiB). Held: memory at once beside arguments and results (XLA's own analysis).",
        "Kernels do not count collectives, nor copies to and from on-chip memory. Collectives: "
        "with the bytes that each takes from a device.",
        "The other way: where a conditional takes its dearest branch instead of its cheapest, and "
        "a loop whose trips the compiler cannot know runs once instead of never. Empty where "
        "there is neither. Of the runner's `advance` that can be its loop of unmeasured steps.",
        "jbn.batch_norm beside the layers, with float32 scale, bias and running statistics that "
        f"come in as arguments. {scale.layers} layers, to a mean square. All gradients of one norm "
        "are for a given cotangent, of layers with respect to the parameters.",
    ]
