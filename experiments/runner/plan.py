"""Cost of a study, found by doing a little of it: nothing is written.

Each network is compiled and trained for two windows of steps, the second with a clock.
"""

import time
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
from rich.table import Column, Table
from rich.text import Text

from experiments.runner.size import check_size
from experiments.study.config import Study
from experiments.study.examples import Examples
from experiments.study.sweep import Sweep, make_sweep, mesh_of, place
from experiments.study.trace import trace
from experiments.study.train import RunState
from experiments.study.windows import plain_steps
from experiments.system.console import Console
from experiments.system.text import counted


class Cost(NamedTuple):
    """Time and memory of one norm's networks, all their runs together."""

    compilation: float
    """Seconds."""
    window: float
    """Seconds for `evaluate_every` steps and an evaluation."""
    memory: int
    """Bytes that its programs hold on each device, data included, as XLA plans them."""


def print_plan(study: Study, data_dir: Path | None, console: Console) -> None:
    """Shows what carrying out `study` takes: programs, runs, steps, memory and time.

    Raises:
        ConfigError: when the study does not fit the devices.
        DataError: when the study's data cannot be had.
    """
    mesh = mesh_of(study)
    traced = trace(study, data_dir)
    check_size(traced)
    examples = place(traced.examples, mesh)
    plain = plain_steps(study.evaluate_every, study.evaluate_every)
    windows, runs = study.steps // study.evaluate_every, 0
    table = Table("network", *(Column(name, justify="right") for name in _COLUMNS))
    total = 0.0
    for label, model in traced.models.items():
        console.print(f"{label}: compiling ..", soft_wrap=True)
        sweep = make_sweep(study, model, mesh)
        cost = measure(sweep, examples, plain)
        runs += sweep.runs
        seconds = cost.compilation + windows * cost.window
        total += seconds
        table.add_row(
            Text(label),
            str(sweep.runs),
            str(study.steps),
            f"{cost.compilation:.1f} s",
            f"{cost.memory / 2**20:.0f} MiB",
            _clock(seconds),
        )
    console.print(table)
    console.print(
        f"{counted(len(study.norms), 'program')}, one after the other, each compiled once for all "
        f"its runs; {counted(runs, 'run')} of {counted(study.steps, 'step')} on "
        f"{counted(mesh.size, 'device')} "
        f"({jax.devices()[0].device_kind}): about {_clock(total)}.",
        soft_wrap=True,
    )


_COLUMNS = ("runs", "steps each", "compilation", "memory per device", "time")


def measure(sweep: Sweep, examples: Examples, plain: np.ndarray) -> Cost:
    """Measures what `sweep` takes on this machine as it is now, in windows of so many steps."""
    states = sweep.init(examples)
    begun = time.perf_counter()
    advance = _compile(sweep.advance, examples, states, plain)
    evaluate = _compile(sweep.evaluate, examples, states)
    compilation = time.perf_counter() - begun

    def window(states: RunState) -> RunState:
        states, measures = advance(examples, states, plain)
        jax.block_until_ready((measures, evaluate(examples, states)))
        return states

    states = window(states)
    begun = time.perf_counter()
    window(states)
    seconds = time.perf_counter() - begun
    return Cost(compilation, seconds, max(map(_bytes, (advance, evaluate))))


def _compile(function: Callable[..., Any], *arguments: Any) -> Any:
    jitted: Any = function
    return jitted.lower(*arguments).compile()


def _bytes(compiled: Any) -> int:
    planned = compiled.memory_analysis()
    return (
        planned.argument_size_in_bytes
        + planned.output_size_in_bytes
        + planned.temp_size_in_bytes
        - planned.alias_size_in_bytes
    )


def _clock(seconds: float) -> str:
    return str(timedelta(seconds=round(seconds)))
