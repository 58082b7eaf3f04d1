"""Timing that survives a noisy machine: one process, random order each round, ratios per round.

What slows a round down slows its neighbours too, so the ratio of two times of one round says more
than either time. The CPU time of all threads repeats better still, but does not see waiting.
"""

import math
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import jax
import numpy as np
import pandas as pd

Clock = Callable[[], dict[str, float]]
"""Does the work once and returns seconds per unit of it, by what was measured (wall, cpu ..)."""

HOST_SECONDS = 0.02
DEVICE_SECONDS = 0.1
MOST_REPEATS = 1000
# Idle threads of a library spin for a while before they sleep, on cores that the next one needs.
SPIN_SECONDS = 0.005


def measure_rounds(clocks: Mapping[str, Clock], *, rounds: int, seed: int) -> pd.DataFrame:
    """Runs each clock once per round, in random order: columns name, round, clock and seconds."""
    rng = np.random.default_rng(seed)
    names, rows = list(clocks), []
    for number in range(rounds):
        for i in rng.permutation(len(names)):
            time.sleep(SPIN_SECONDS)
            times = clocks[names[i]]()
            rows += [(names[i], number, clock, seconds) for clock, seconds in times.items()]
    rows.sort(key=lambda row: names.index(row[0]))
    return pd.DataFrame(rows, columns=["name", "round", "clock", "seconds"])


def compare(timings: pd.DataFrame, baseline: str) -> pd.DataFrame:
    """Returns median and quartiles of the seconds, and of how many times faster than `baseline`.

    Args:
      timings: as from `measure_rounds`.
      baseline: the name whose seconds are divided, round by round, by everyone's. Ratios are NaN
        where it did not take part.

    Returns:
      One row for each name and clock, with columns seconds, seconds_q25, seconds_q75, ratio,
      ratio_q25 and ratio_q75.
    """
    base = timings.loc[timings["name"] == baseline, ["round", "clock", "seconds"]]
    timings = timings.merge(base, "left", on=["round", "clock"], suffixes=("", "_of_baseline"))
    timings["ratio"] = timings["seconds_of_baseline"] / timings["seconds"]
    grouped = timings.groupby(["name", "clock"], sort=False)[["seconds", "ratio"]]
    parts = {"": grouped.median(), "_q25": grouped.quantile(0.25), "_q75": grouped.quantile(0.75)}
    return pd.concat(
        [part.add_suffix(suffix) for suffix, part in parts.items()], axis=1
    ).reset_index()


def as_dear(compared: pd.DataFrame) -> pd.DataFrame:
    """Returns what `compare` gives, with how many times as dear as the baseline each row is."""
    # The ratio's inverse, whose quartiles change places.
    ends = {"times": "ratio", "times_q25": "ratio_q75", "times_q75": "ratio_q25"}
    return compared.assign(**{name: 1 / compared[ratio] for name, ratio in ends.items()})


def host_clock(call: Callable[[Any], object], pool: Sequence[Any]) -> Clock:
    """Clocks a call as a user makes it, dispatch included, on inputs in turn: wall and CPU time."""
    repeats = _repeats(call, pool, HOST_SECONDS)

    def clock() -> dict[str, float]:
        cpu, wall = time.process_time(), time.perf_counter()
        for i in range(repeats):
            call(pool[i % len(pool)])
        wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
        return {"wall": wall / repeats, "CPU": cpu / repeats}

    return clock


def device_clock(
    call: Callable[[Any], object],
    pool: Sequence[Any],
    repeat: Callable[[Sequence[Any], int], Callable[[], float]],
) -> Clock:
    """Clocks the device alone: `repeat(pool, times)` keeps it busy without the host between."""
    times = math.ceil(_repeats(call, pool, DEVICE_SECONDS) / len(pool))
    seconds = repeat(pool, times)
    seconds()  # compiles
    return lambda: {"device": seconds() / (times * len(pool))}


def _repeats(call: Callable[[Any], object], pool: Sequence[Any], seconds: float) -> int:
    """Finds how many calls take about `seconds`."""
    for inputs in pool:
        call(inputs)
    start = time.perf_counter()
    for inputs in pool:
        call(inputs)
    each = (time.perf_counter() - start) / len(pool)
    return max(1, min(MOST_REPEATS, math.ceil(seconds / each)))


def loop_on_device(
    function: Callable[..., Any], pool: Sequence[tuple[Any, ...]], times: int
) -> Callable[[], float]:
    """Makes one program that does `function(*inputs)` for each of the pool, `times` times over.

    Every call waits for the one before, and its inputs may have changed for all the compiler
    knows: nothing is skipped, merged, or moved out of the loop.
    """

    def body(_: Any, carry: Any) -> Any:
        pool, outputs = carry
        turned = []
        for inputs in pool:
            inputs, outputs = jax.lax.optimization_barrier((inputs, outputs))
            turned.append(inputs)
            outputs = function(*inputs)
        return turned, outputs

    @partial(jax.jit, donate_argnums=1)
    def program(pool: Any, outputs: Any) -> Any:
        return jax.lax.fori_loop(0, times, body, (pool, outputs))[1]

    shapes = jax.eval_shape(function, *pool[0])
    outputs = jax.tree.map(lambda leaf: jax.numpy.zeros(leaf.shape, leaf.dtype), shapes)

    def seconds() -> float:
        nonlocal outputs
        start = time.perf_counter()
        outputs = jax.block_until_ready(program(list(pool), outputs))
        return time.perf_counter() - start

    return seconds
