"""Every evaluation as a row for each run in `metrics.csv`, from the first one on.

`tail -f DIR/metrics.csv` follows a study, and `pandas.read_csv("DIR/metrics.csv")` opens it.
"""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
import xarray as xr

from experiments.files import saving, write_whole

ROWS = "metrics.csv"


class Evaluation(NamedTuple):
    """Of all runs of one network."""

    norm: str
    step: int


class Rows:
    """Writes `metrics.csv` in `directory`."""

    def __init__(self, directory: Path) -> None:
        self._path = directory / ROWS

    def begin(self, dataset: xr.Dataset, done: int) -> None:
        """Writes what was measured before, in the first `done` steps of all networks together.

        Raises:
            SaveError: when it cannot be written; so in `append` and `end`.
        """
        tables = [table(dataset, evaluation) for evaluation in evaluated(dataset, done)]
        header = table(dataset, None)
        text = "".join([_text(header, header=True), *map(_text, tables)])
        write_whole(self._path, text.encode())

    def append(self, dataset: xr.Dataset, evaluation: Evaluation) -> None:
        """Adds what was measured just now; whoever reads finds it."""
        with saving(self._path), self._path.open("ab") as file:
            file.write(_text(table(dataset, evaluation)).encode())

    def end(self) -> None:
        """Waits until the disk has all rows."""
        with saving(self._path), self._path.open("ab") as file:
            os.fsync(file.fileno())


def evaluated(dataset: xr.Dataset, done: int) -> Iterator[Evaluation]:
    """What was measured in the first `done` steps of all networks together, in order."""
    steps = dataset.step.values
    for i, norm in enumerate(dataset.norm.values):
        mine = done - i * steps[-1]
        if mine > 0:  # a network is looked at before its first step, and then trained
            yield from (Evaluation(str(norm), int(step)) for step in steps[steps <= mine])


def table(dataset: xr.Dataset, evaluation: Evaluation | None) -> pd.DataFrame:
    """A row for each run of `evaluation`, none for None: the run, the step, and what was measured.

    A measure of each layer or percentile has a column for each, `gradient_norm/hidden_1`. The
    histograms are left out. What was not measured is NaN.
    """
    rates, seeds = dataset.learning_rate.values, dataset.seed.values
    columns: dict[str, np.ndarray] = {
        "norm": np.full(len(rates) * len(seeds), evaluation.norm if evaluation else "", object),
        "learning_rate": np.repeat(rates, len(seeds)),
        "seed": np.tile(seeds, len(rates)),
        "step": np.full(len(rates) * len(seeds), evaluation.step if evaluation else 0),
    }
    at = (
        dataset.indexes["norm"].get_loc(evaluation.norm) if evaluation else 0,
        slice(None),
        slice(None),
        dataset.indexes["step"].get_loc(evaluation.step) if evaluation else 0,
    )
    for name, variable in dataset.data_vars.items():
        match variable.dims[3:]:
            case ("step",):
                columns[str(name)] = variable.values[at].reshape(-1)
            case ("step", dim):
                values = variable.values[at].reshape(len(rates) * len(seeds), -1)
                labels = dataset[dim].values
                columns |= {f"{name}/{label}": values[:, i] for i, label in enumerate(labels)}
    rows = pd.DataFrame(columns)
    return rows if evaluation else rows.iloc[:0]


def _text(rows: pd.DataFrame, *, header: bool = False) -> str:
    return rows.to_csv(index=False, header=header, lineterminator="\n")
