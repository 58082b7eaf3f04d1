"""Carry out a study: train every network at every rate from every seed, and keep what was measured.

Networks are trained one after the other, each with all its runs at once.
"""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import jax
import xarray as xr
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from experiments import data, results
from experiments.config import Study
from experiments.sweep import make_mesh, make_sweep, place

SECONDS_BETWEEN_LINES = 10

Advance = Callable[[str, int], None]


def run(
    study: Study, directory: Path, *, data_dir: Path | None, command: str, console: Console
) -> xr.Dataset:
    """Trains and measures `study`; `directory` then holds `config.json` and `metrics.nc`.

    Args:
        study: What to train.
        directory: Where results go; made if absent. Results that lie there are replaced.
        data_dir: As in `data.load`.
        command: What a reader would type to repeat this; kept in the dataset.
        console: Where progress is shown: a bar on a terminal, a line now and then elsewhere.

    Raises:
        DataError: when the study's data cannot be had.
        OSError: when `directory` cannot be written to. Both before any training.
    """
    images = data.load(study.data, data_dir)
    directory.mkdir(parents=True, exist_ok=True)
    results.save_config(study, directory)
    console.print(
        f"{study.name}: {len(study.norms)} networks x {len(study.learning_rates)} learning rates x "
        f"{len(study.seeds)} seeds, {study.steps} steps each, on {jax.device_count()} devices "
        f"({jax.devices()[0].device_kind})"
    )
    with _progress(console, len(study.norms) * study.steps) as advance:
        dataset = _train(study, images, advance).assign_attrs(command=command)
    results.save(dataset, directory)
    return dataset


def _train(study: Study, images: data.Data, show: Advance) -> xr.Dataset:
    dataset = results.blank(study)
    mesh = make_mesh()
    images = place(images, mesh)
    for label, norm in study.norms.items():
        sweep = make_sweep(study, norm, mesh)
        show(label, 0)
        states = sweep.init(images)
        results.record(dataset, label, 0, jax.device_get(sweep.evaluate(images, states)))
        for step in range(study.evaluate_every, study.steps + 1, study.evaluate_every):
            states, window = sweep.advance(images, states)
            measures = window | sweep.evaluate(images, states)
            results.record(dataset, label, step, jax.device_get(measures))
            show(label, study.evaluate_every)
        diverged_at = jax.device_get(states.diverged_at)
        results.record(dataset, label, study.steps, {"diverged_at": diverged_at})
    return dataset


@contextmanager
def _progress(console: Console, total: int) -> Iterator[Advance]:
    """Shows how many of `total` steps are done, each time `advance(network, steps)` is called."""
    if not console.is_terminal:
        yield _lines(console, total)
        return
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        TextColumn("{task.completed:.0f}/{task.total:.0f} steps"),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=console) as bar:
        task = bar.add_task("", total=total)
        yield lambda network, steps: bar.update(task, description=network, advance=steps)


def _lines(console: Console, total: int) -> Advance:
    begun = last = time.monotonic()
    done = 0

    def advance(network: str, steps: int) -> None:
        nonlocal last, done
        done += steps
        now = time.monotonic()
        if done == total or (done and now - last >= SECONDS_BETWEEN_LINES):
            left = (now - begun) / done * (total - done)
            console.print(f"{network}: {done}/{total} steps, {left:.0f} s left")
            last = now

    return advance
