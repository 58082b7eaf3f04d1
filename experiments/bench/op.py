"""Time of one batch norm: forward alone, and y, new statistics and all gradients.

Beside every library stands the machine's own limit: a map that reads an array of x's size and
writes one. Forward cannot do with less than one and a half such copies, two reads and one write;
with the gradients for a given cotangent it is four, six reads and two writes.
"""

from collections.abc import Iterator, Sequence
from functools import partial
from typing import Any, get_args

import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd

from experiments.bench.measure import (
    Clock,
    compare,
    device_clock,
    host_clock,
    loop_on_device,
    measure_rounds,
)
from experiments.bench.output import Report, absences, spread
from experiments.bench.reference import Problem, errors, make_problem, solve
from experiments.bench.rivals import BASELINE, Mode, Rival, find_rivals
from experiments.system.progress import announce

Shape = tuple[int, ...]

SHAPES: tuple[Shape, ...] = (
    (60, 100),
    (128, 512),
    (32, 32, 32, 64),
    (1024, 1024),
    (8192, 1024),
    (65536, 256),
    (128, 16, 16, 256),
)
GPU_SHAPES = (*SHAPES, (8192, 4096))

POOL = 3  # inputs taken in turn, so that none is found where the last call left it
COPY = "copy of x"
COPIES: dict[Mode, float] = {"forward": 1.5, "all gradients": 4.0}
# On easy inputs, in the units of `reference`: what is above is a mistake, not rounding.
TOLERANCE = {"float32": 1e-4, "bfloat16": 3e-2}


def measure(
    shapes: Sequence[Shape] = (), dtypes: Sequence[str] = (), *, rounds: int, seed: int
) -> Report:
    """Times every library that is here, at each shape and type; empty means the usual ones."""
    on_cpu = jax.default_backend() == "cpu"
    shapes = shapes or (SHAPES if on_cpu else GPU_SHAPES)
    dtypes = dtypes or (("float32",) if on_cpu else ("float32", "bfloat16"))
    field = find_rivals()
    failures: list[str] = []
    parts = [
        part
        for dtype in dtypes
        for shape in shapes
        for part in _measure_shape(field.rivals, shape, dtype, failures, rounds=rounds, seed=seed)
    ]
    data = pd.concat(parts, ignore_index=True)
    tables = {
        f"{mode}, {dtype}": table(data.query("mode == @mode and dtype == @dtype"))
        for dtype in dtypes
        for mode in COPIES
    }
    notes = [*_notes(on_cpu, rounds), *absences(field.absent), *failures]
    return Report("op", "One batch norm", data, tables, notes)


def _measure_shape(
    rivals: Sequence[Rival],
    shape: Shape,
    dtype: str,
    failures: list[str],
    *,
    rounds: int,
    seed: int,
) -> Iterator[pd.DataFrame]:
    rng = np.random.default_rng(seed)
    problems = [_problem(shape, dtype, rng) for _ in range(POOL)]
    answer = solve(problems[0], np.float64)
    pools = {rival.name: [rival.put(problem) for problem in problems] for rival in rivals}
    copies = [(jax.device_put(problem.x),) for problem in problems]
    for mode in get_args(Mode):
        announce(f"{_written(shape)} {dtype}, {mode}")
        error, clocks = {}, {}
        for rival in rivals:
            pool = pools[rival.name]
            try:
                error_of = errors(answer, rival.numbers(rival.call(mode, pool[0])))
                clocks[rival.name] = _clock(rival, mode, pool)
            except Exception as failure:  # must not cost the others their measurement
                reason = f"{type(failure).__name__}: {str(failure).partition(chr(10))[0]}"
                failures.append(
                    f"Failed: {rival.name}, {_written(shape)} {dtype}, {mode} ({reason})"
                )
                continue
            error[rival.name] = float(np.max(list(error_of.values())))
        clocks[COPY] = _copy_clock(copies)
        timings = measure_rounds(clocks, rounds=rounds, seed=seed)
        yield _compared(timings, mode).assign(
            shape=_written(shape),
            dtype=dtype,
            mode=mode,
            error=lambda rows, error=error: rows["name"].map(error),
            right=lambda rows: (rows["error"] < TOLERANCE[dtype]) | (rows["name"] == COPY),
        )


def _problem(shape: Shape, dtype: str, rng: np.random.Generator) -> Problem:
    x = 2 * rng.standard_normal(shape, np.float32) + 1
    return make_problem(x.astype(jnp.dtype(dtype)), rng)


def _compared(timings: pd.DataFrame, mode: Mode) -> pd.DataFrame:
    """Returns times, ratios, and the part of the copy's bandwidth that the fewest passes take."""
    compared = compare(timings, BASELINE)
    of_copy = compare(timings, COPY)["ratio"] * COPIES[mode]
    return compared.assign(of_copy=of_copy.where(compared["name"] != COPY))


def table(data: pd.DataFrame) -> pd.DataFrame:
    """Returns the rows of one mode and type as they are read."""
    first = "device" if "device" in set(data["clock"]) else "wall"
    shown = data[data["clock"] == first]
    columns: dict[str, Any] = {
        "shape": shown["shape"],
        "": shown["name"],
        "ms": [f"{1000 * seconds:.3g}" for seconds in shown["seconds"]],
    }
    for clock in data["clock"].unique():
        ratios = data.query("clock == @clock")[["ratio", "ratio_q25", "ratio_q75"]]
        columns[f"times faster, {clock} time"] = [spread(*row) for row in ratios.to_numpy()]
    columns["of the copy's bandwidth"] = [_percent(part) for part in shown["of_copy"]]
    columns["right"] = [
        "" if name == COPY else "yes" if right else f"NO, off by {error:.0e}"
        for name, right, error in zip(shown["name"], shown["right"], shown["error"])
    ]
    return pd.DataFrame({name: list(column) for name, column in columns.items()})


def _percent(part: float) -> str:
    return "" if pd.isna(part) else f"{100 * part:.0f} %"


def _written(shape: Shape) -> str:
    return "x".join(map(str, shape))


def _clock(rival: Rival, mode: Mode, pool: Sequence[Any]) -> Clock:
    call = partial(rival.call, mode)
    if jax.default_backend() == "cpu":
        return host_clock(call, pool)
    return device_clock(call, pool, partial(rival.repeat, mode))


def _copy_clock(pool: Sequence[tuple[jax.Array]]) -> Clock:
    copy = jax.jit(jnp.negative)
    call = lambda inputs: jax.block_until_ready(copy(*inputs))  # noqa: E731
    if jax.default_backend() == "cpu":
        return host_clock(call, pool)
    return device_clock(call, pool, partial(loop_on_device, jnp.negative))


def _notes(on_cpu: bool, rounds: int) -> list[str]:
    timed = (
        "Wall and CPU time (all threads) of one call from Python, finished"
        if on_cpu
        else "Device time: calls on end in one program (JAX) or one CUDA graph (PyTorch)"
    )
    return [
        f"{timed}; all threads of the machine are free to use. Each library once per round in "
        f"random order, {rounds} rounds, over {POOL} inputs in turn.",
        f"Times faster: seconds of {BASELINE} with its defaults by seconds of the row, per round; "
        "median and quartiles.",
        f"Of the copy's bandwidth: what the fewest passes over memory would take ({COPY}: one read "
        "and one write; forward 2 and 1, with gradients 6 and 2) by what was taken. Above 100 % "
        "where x stays in a cache.",
        "Right: every output was within "
        + " and ".join(f"{bound:.0e} ({dtype})" for dtype, bound in TOLERANCE.items())
        + " of float64, before timing.",
    ]
