"""Every evaluation as a row for each run in `metrics.csv`, from the first one on.

`tail -f DIR/metrics.csv` follows a study, and `pandas.read_csv("DIR/metrics.csv")` opens it.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
import xarray as xr

from experiments.runner.results import labels, of_label
from experiments.system import checksums
from experiments.system.files import saving, write_whole

ROWS = "metrics.csv"


class Evaluation(NamedTuple):
    """Of all runs of one of the study's norms."""

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

    def end(self, dataset: xr.Dataset) -> None:
        """Writes all rows of a study that has finished: whatever happened to the file meanwhile."""
        self.begin(dataset, len(dict.fromkeys(labels(dataset))) * int(dataset.step[-1]))
        checksums.add(self._path.parent, [ROWS])


def evaluated(dataset: xr.Dataset, done: int) -> Iterator[Evaluation]:
    """Yields the evaluations in the first `done` steps of all networks together, in order."""
    steps = dataset.step.values
    for i, norm in enumerate(dict.fromkeys(labels(dataset))):
        own_steps = done - i * steps[-1]
        if own_steps > 0:  # a network is looked at before its first step, and then trained
            yield from (Evaluation(str(norm), int(step)) for step in steps[steps <= own_steps])


def table(dataset: xr.Dataset, evaluation: Evaluation | None) -> pd.DataFrame:
    """Makes a row for each run of `evaluation`, none for None: the run, the step, the measures.

    What the study has several values of has a column, and so has a measure of each layer or
    percentile, `gradient_norm/hidden_1`. The histograms are left out. What was not measured is NaN.
    """
    networks = of_label(dataset, evaluation.norm) if evaluation else np.arange(0)
    step = dataset.indexes["step"].get_loc(evaluation.step) if evaluation else 0
    rates, seeds = dataset.learning_rate.values, dataset.seed.values
    coordinates = [name for name, along in dataset.coords.items() if along.dims == ("norm",)]
    columns: dict[str, np.ndarray] = {
        **{
            str(name): np.repeat(dataset[name].values[networks], len(rates) * len(seeds))
            for name in dict.fromkeys(["norm", *coordinates])
        },
        "learning_rate": np.tile(np.repeat(rates, len(seeds)), networks.size),
        "seed": np.tile(seeds, len(rates) * networks.size),
        "step": np.full(
            networks.size * len(rates) * len(seeds), evaluation.step if evaluation else 0
        ),
    }
    for name, variable in dataset.data_vars.items():
        match variable.dims[3:]:
            case ("step",):
                columns[str(name)] = variable.values[networks, :, :, step].reshape(-1)
            case ("step", dim):
                names = dataset[dim].values
                values = variable.values[networks, :, :, step].reshape(-1, len(names))
                columns |= {f"{name}/{of}": values[:, i] for i, of in enumerate(names)}
    return pd.DataFrame(columns)


def _text(rows: pd.DataFrame, *, header: bool = False) -> str:
    return rows.to_csv(index=False, header=header, lineterminator="\n")
