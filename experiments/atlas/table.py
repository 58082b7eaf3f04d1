"""Table of the atlas, atlas.csv: a row for each run, a line about how they were made."""

import io
import json
from collections.abc import Mapping
from importlib.metadata import version
from itertools import product
from pathlib import Path

import numpy as np
import pandas as pd

from experiments.atlas import grid
from experiments.atlas.train import Ends
from experiments.system.files import write_whole

TABLE = "atlas.csv"
_MARK = "# grid: "
_KEYS = (*grid.Program._fields, "learning_rate", "init_scale", "seed")


def read(path: Path) -> dict[grid.Program, Ends]:
    """Returns what the file at `path` has of each program; nothing if there is no file.

    Raises:
        ValueError: if it is something else, or of another grid.
    """
    if not path.exists():
        return {}
    text = path.read_text(encoding="utf-8")
    first, _, _ = text.partition("\n")
    if first != _first_line():
        raise ValueError(
            f"{path}: is no table of this atlas (its first line is not {_first_line()!r}). Choose "
            "another folder, or remove it."
        )
    rows = pd.read_csv(io.StringIO(text), comment="#")
    shape = (len(grid.LEARNING_RATES), len(grid.INIT_SCALES), grid.SEEDS)
    runs = {}
    for _, part in rows.groupby([*grid.Program._fields], sort=False):
        ends = (part[name].to_numpy().reshape(shape) for name in Ends._fields)
        runs[grid.Program(*part.iloc[0][: len(grid.Program._fields)])] = Ends(*ends)
    return runs


def write(path: Path, measured: Mapping[grid.Program, Ends]) -> None:
    """Writes all that is measured, whole or not at all."""
    write_whole(path, f"{_first_line()}\n{to_frame(measured).to_csv(index=False)}".encode())


def to_frame(measured: Mapping[grid.Program, Ends]) -> pd.DataFrame:
    """Returns a row for each run, accuracies to the fifth digit."""
    settings = [*product(grid.LEARNING_RATES, grid.INIT_SCALES, range(grid.SEEDS))]
    rows = [
        (*program, *setting, *(round(float(end), 5) for end in run))
        for program, ends in measured.items()
        for setting, run in zip(settings, zip(*map(np.ravel, ends)))
    ]
    return pd.DataFrame(rows, columns=[*_KEYS, *Ends._fields])


def _first_line() -> str:
    """Returns grid and versions as one line: runs of others are not mixed with these."""
    versions = {name: version(name) for name in ("jax", "flax", "optax", "scikit-learn")}
    return f"{_MARK}{json.dumps(grid.constants() | versions)}"
