"""Batch norm on every mesh: each cell is the whole batch in extended precision.

As a command it checks every cell there is, prints a summary in Markdown, and fails if a cell does:
`python tests/matrix.py --log FILE`. What FILE has is not checked again, so that the hours which it
takes can be spent bit by bit; `--chunks N` stops after as many. `--cover` checks the cells that
the tests do.
"""

import argparse
import collections
import itertools
import json
import math
import os
import platform
import random
import sys
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from contextlib import nullcontext
from importlib.metadata import version
from multiprocessing import get_context
from pathlib import Path
from typing import NamedTuple

from xla_flags import FLAGS

if __name__ == "__main__":  # before JAX is imported
    os.environ |= {"XLA_FLAGS": FLAGS, "JAX_PLATFORMS": "cpu"}

import collectives
import jax
import numpy as np
from jax.sharding import NamedSharding
from matrix_programs import SHAPES, VARIANTS, Program, place, program

# Of the natural scale of each quantity, as `reference` has them. By docs/math.md a variance of one
# device alone may be 4e-6 off.
TOLERANCES = {"var": 2e-6}
TOLERANCE = 1e-6
CHUNK = 50  # cells between two lines of a log


class Cell(NamedTuple):
    axes: str
    mesh: tuple[int, ...]
    sharded: str  # the axes of x that are
    vectors: str  # parameters and statistics
    mask: str
    function: str
    variant: str
    call: str
    size: str
    rank: int
    statistics: str

    def __str__(self):
        return " ".join(str(value) for value in self).replace(", ", "x")


DIMENSIONS = {
    "axes": ("Auto", "Explicit", "Manual"),
    "mesh": ((4,), (2, 2), (1,)),
    "sharded": ("batch", "features", "both", "inner"),
    "vectors": ("replicated", "like features"),
    "mask": ("none", "example", "element"),
    "function": ("batch_norm", "linen", "nnx", "batch_moments", "pool_moments", "recalibrate"),
    "variant": (*VARIANTS, "-"),
    "call": ("eager", "jit", "eager set_mesh", "jit set_mesh"),
    "size": ("small", "large"),
    # Not crossed with the rest in the whole product: each of its cells draws one of each.
    "rank": (2, 4),
    "statistics": ("near", "far"),  # far ones need a second look at the batch
}


def exists(cell: Cell) -> bool:
    """Whether a cell means something of its own.

    - Both the batch and the features are sharded only over two mesh axes.
    - An inner axis needs four axes of x.
    - Vectors are sharded like the features only where those are. Within `shard_map` they then
      must be, or a device would have the vectors of features that it does not hold.
    - `shard_map` is compiled, and so is what `recalibrate` measures with.
    - Moments know no variant and no vectors; stacked ones have neither a mask nor an inner axis.
    - A ghost group never crosses devices, so in `shard_map` its examples lie on one whole.
    """
    features = cell.sharded in ("features", "both")
    manual = cell.axes == "Manual"
    layer = cell.function in ("batch_norm", "linen", "nnx")
    stacked = cell.function == "pool_moments"
    moments = stacked or cell.function == "batch_moments"
    return not (
        (cell.sharded == "both" and cell.mesh != (2, 2))
        or (cell.sharded == "inner" and (cell.rank != 4 or stacked))
        or (cell.vectors == "like features" and not features)
        or (cell.vectors == "replicated" and features and (manual or moments))
        or (cell.call.startswith("eager") and (manual or cell.function == "recalibrate"))
        or layer == (cell.variant == "-")
        or (stacked and (cell.mask != "none" or cell.rank != 2))
        or (cell.variant.startswith("Ghost") and manual and cell.sharded == "inner")
    )


def product() -> Iterator[Cell]:
    """Every cell that exists, of some rank and some statistics."""
    crossed = list(DIMENSIONS.values())
    for values in itertools.product(*crossed[:-2]):
        rest = [values + drawn for drawn in itertools.product(*crossed[-2:])]
        if possible := [cell for cell in itertools.starmap(Cell, rest) if exists(cell)]:
            yield random.Random(str(values)).choice(possible)


def cover(seed: int = 0, tries: int = 20) -> list[Cell]:
    """Few cells with every two values that exist together, on Explicit axes if they exist there.

    Greedy: the best of some random cells about a combination that is still missing.
    """
    rng = random.Random(seed)

    def combinations(cell):
        (first, *rest) = zip(Cell._fields, cell)
        explicit = [first] if cell.axes == "Explicit" else []
        pairs = [(*explicit, *pair) for pair in itertools.combinations(rest, 2)]
        return dict.fromkeys(pairs + [(first, value) for value in rest])

    def complete(fixed):
        return Cell(**{name: rng.choice(DIMENSIONS[name]) for name in DIMENSIONS} | dict(fixed))

    wanted = dict.fromkeys(c for cell in product() for c in combinations(cell))
    for combination in [c for c in wanted if (("axes", "Explicit"), *c) in wanted]:
        del wanted[combination]
    cells = []
    while wanted:
        first = next(iter(wanted))
        candidates = filter(exists, (complete(first) for _ in itertools.count()))
        best = max(
            itertools.islice(candidates, tries),
            key=lambda cell: len(combinations(cell).keys() & wanted.keys()),
        )
        cells.append(best)
        for found in combinations(best):
            wanted.pop(found, None)
    return cells


def check(cell: Cell) -> list[str]:
    """Says what is wrong in a cell: nothing, if all is well."""
    places = place(cell)
    under = jax.set_mesh(places.mesh) if "set_mesh" in cell.call else nullcontext()
    with under:
        task = program(cell, places)
        arrays = jax.tree.map(
            lambda array, spec: jax.device_put(array, NamedSharding(places.mesh, spec)),
            task.arrays,
            task.specs,
        )
        found, texts = task.run(arrays)
        # Host devices may wait for each other for ever when programs overlap.
        found = jax.block_until_ready(found)
    return [*_values(task, found), *_shardings(cell, task, found), *_traffic(cell, places, texts)]


def _values(task: Program, found) -> Iterator[str]:
    for name, right in task.right.items():
        error = np.abs(np.asarray(found[name]).astype(np.longdouble) - right)
        ratio = error / np.maximum(task.units[name], np.finfo(np.float32).tiny)
        ratio = np.where(task.where if error.ndim > 1 else True, ratio, 0)
        worst = np.max(np.where(np.isnan(ratio), np.inf, ratio))
        if worst > TOLERANCES.get(name, TOLERANCE):
            yield f"{name} is off by {worst:.1e}"


def _shardings(cell: Cell, task: Program, found) -> Iterator[str]:
    if cell.axes == "Auto":
        return
    for name, spec in task.out.items():
        if name == "size":  # the same of every feature, so it may lie anywhere
            continue
        array = found[name]
        if not array.sharding.is_equivalent_to(NamedSharding(place(cell).mesh, spec), array.ndim):
            yield f"{name} is sharded as {array.sharding.spec}, not as {spec}"


def _traffic(cell: Cell, places, texts) -> Iterator[str]:
    shard = math.prod(SHAPES[cell.size, cell.rank]) // places.mesh.size
    for text in texts:
        for carried in collectives.find(text):
            if carried.elements >= shard:
                yield f"{carried.kind} of {carried.elements} elements: {carried.line[:200]}"


def check_all(cells: list[Cell]) -> list[tuple[Cell, list[str]]]:
    """Says of each cell what is wrong; neighbours share much of what must be compiled."""
    jax.clear_caches()  # or the programs of the whole product would stay in memory
    found = []
    for cell in cells:
        try:
            wrong = check(cell)
        except Exception as error:  # an answer too
            wrong = [f"{type(error).__name__}: {error}"[:200]]
        found.append((cell, wrong))
    return found


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--log", type=Path, help="what was found, in lines of JSON")
    parser.add_argument("--chunks", type=int, help=f"how many times {CHUNK} cells, at most")
    parser.add_argument("--cover", action="store_true", help="the cells that the tests check")
    options = parser.parse_args()
    cells = cover() if options.cover else list(product())
    chunks = {str(cells[i]): cells[i : i + CHUNK] for i in range(0, len(cells), CHUNK)}
    log = options.log if options.log and options.log.exists() else None
    lines = [json.loads(line) for line in log.read_text().splitlines()] if log else []
    left = [name for name in chunks if name not in {line[0] for line in lines}]
    random.Random(0).shuffle(left)  # a part of them is then a sample of all
    left = left[: options.chunks]
    with ProcessPoolExecutor(os.cpu_count(), mp_context=get_context("spawn")) as pool:
        at_work = {pool.submit(check_all, chunks[name]): name for name in left}
        for number, task in enumerate(as_completed(at_work), start=1):
            failed = [(str(cell), wrong) for cell, wrong in task.result() if wrong]
            lines.append([at_work[task], failed])
            if options.log:
                with options.log.open("a") as file:
                    file.write(json.dumps(lines[-1]) + "\n")
            print(f"{number} of {len(left)} chunks", file=sys.stderr, flush=True)
    failures = dict(itertools.chain.from_iterable(failed for _, failed in lines))
    print(report([cell for name, _ in lines for cell in chunks[name]], failures))
    return bool(failures)


def report(cells: list[Cell], failures: dict[str, list[str]]) -> str:
    versions = ", ".join(f"{name} {version(name)}" for name in ("jax", "jaxlib", "flax", "numpy"))
    groups = collections.defaultdict(list)
    for cell in cells:
        groups[cell.axes, cell.mesh, cell.sharded].append(str(cell) in failures)
    rows = sorted(groups.items())
    lines = [
        f"{len(cells)} cells, {len(failures)} of them failed: Python {platform.python_version()}, "
        f"{versions}.",
        "",
        "| axes | mesh | x sharded along | cells | failed |",
        "|---|---|---|---|---|",
        *(f"| {' | '.join(map(str, key))} | {len(bad)} | {sum(bad)} |" for key, bad in rows),
        "",
        *(f"- {cell}: {'; '.join(wrong)}" for cell, wrong in failures.items()),
    ]
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
