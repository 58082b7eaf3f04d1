"""Several studies on one page: a row and a curve for each network of each, at its best rate.

Networks of different studies meet only here, where nothing is tested: each number keeps the
interval of its own study.
"""

import json
import os
import shlex
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import quote

import numpy as np
import xarray as xr

from experiments.report.captions import Caption
from experiments.report.charts import STEP, curves, score_axis, targets, ticks_of
from experiments.report.looks import Network, colours_of, dashes_of, networks
from experiments.report.pages import Drawn, render
from experiments.report.runs import (
    at_rates,
    best_learning_rates,
    choices,
    final_accuracy,
    judged,
    score_name,
)
from experiments.report.specification import Axis, Curve, Figure, Mark, Panel
from experiments.report.summary import summarize
from experiments.report.write import Rows, load_study, network_rows, settings
from experiments.runner.folder import PAGE
from experiments.system.console import printable
from experiments.system.files import write_whole

CAPTIONS = {
    "accuracy": Caption(
        "Test accuracy while training",
        "Each network at the best learning rate of its own study; the band runs from the smallest "
        "seed to the largest.",
        (),
    ),
    "learning_rate": Caption(
        "Test accuracy after training, at every learning rate",
        "The line is the mean over seeds, a point is one run; a run whose loss was not finite "
        "counts as chance.",
        (),
    ),
}


def write_comparison(directories: Sequence[Path], out: Path) -> Path:
    """Write one page that holds the studies of `directories` against each other.

    Args:
        directories: Folders that `run` wrote to, at least two.
        out: The page to write.

    Returns:
        The path of the page.

    Raises:
        FileNotFoundError: a folder has no metrics.nc.
        ValueError: a folder is given twice or alone, or its study has not finished.
    """
    directories = [Path(directory) for directory in directories]
    if len({directory.resolve() for directory in directories}) < max(2, len(directories)):
        given = ", ".join(map(str, directories)) or "none"
        raise ValueError(f"A comparison needs at least two different folders, got {given}.")
    studies = dict(zip(_names(directories), map(load_study, directories)))
    score, out = _score(studies), Path(out)
    page = render(
        "comparison.html.jinja",
        "comparison",
        _drawn(studies),
        claims={name: dataset.attrs.get("claim", "") for name, dataset in studies.items()},
        seeds={name: dataset.seed.size for name, dataset in studies.items()},
        reports=dict(zip(studies, (_link(directory, out) for directory in directories))),
        differences=differences(studies),
        table_of=comparison_table(studies),
        gains=gains(studies),
        score=score,
        captions={name: caption.about(score) for name, caption in CAPTIONS.items()},
        measured={},
        command=printable(f"python -m experiments report {shlex.join(map(str, directories))}"),
    )
    write_whole(out, page.encode())
    return out


def _link(directory: Path, out: Path) -> str | None:
    """The address of a study's report as seen from the page `out`; None where there is none."""
    page = directory / PAGE
    if not page.is_file():
        return None
    return quote(os.fsencode(os.path.relpath(page.resolve(), out.resolve().parent)))


def _drawn(studies: Mapping[str, xr.Dataset]) -> Drawn:
    """What the page draws: the networks of all studies, of one norm in one colour."""
    every = [(name, one) for name, dataset in studies.items() for one in networks(dataset)]
    colours = colours_of(network.label for _, network in every)
    dashes = dashes_of(network.label for _, network in every)
    shown = [
        Network(f"{name}: {network.name}", network.label, colours[network.label], dash)
        for dash, (name, network) in zip(dashes, every)
    ]
    figures = {"accuracy": [accuracy(studies)], "learning_rate": [learning_rate(studies)]}
    longest = max((dataset.step.values for dataset in studies.values()), key=len)
    return Drawn(shown, figures, longest)


def differences(studies: Mapping[str, xr.Dataset]) -> tuple[list[str], Rows]:
    """A row for each setting in which the studies differ, a column for each study."""
    all_of = [settings(json.loads(d.attrs.get("config", "{}"))) for d in studies.values()]
    names = dict.fromkeys(name for one in all_of for name in one)
    rows = [[name, *(one.get(name, "–") for one in all_of)] for name in names]
    return ["setting", *studies], [row for row in rows if len(set(row[1:])) > 1]


def comparison_table(studies: Mapping[str, xr.Dataset]) -> tuple[list[str], Rows]:
    """A row for each network of each study, at its best rate there."""
    header, rows = ["study", "network"], []
    for name, dataset in studies.items():
        summary = summarize(dataset)
        (_, *networks), columns = network_rows(summary)
        quantities, *values = zip(*columns)
        header = ["study", "network", *quantities]
        rows += [[name, network, *own] for network, own in zip(networks, values)]
    return header, rows


def gains(studies: Mapping[str, xr.Dataset]) -> tuple[list[str], list[tuple[str, list[Any]]]]:
    """Accuracy of each network less that of its study's first, in points, rate by rate.

    The last column is at each one's best rate. None where a study has no such rate.
    """
    rows: dict[str, dict[str, float]] = {}
    for name, dataset in studies.items():
        final = final_accuracy(dataset)
        best = at_rates(final.to_dataset(name="best"), best_learning_rates(dataset)).best
        best = best.drop_vars("learning_rate").expand_dims(learning_rate=["best"])
        final = final.assign_coords(learning_rate=[f"{r:g}" for r in final.learning_rate.values])
        means = 100 * xr.concat([final, best], "learning_rate").mean("seed")
        baseline, *others = dataset.norm.values
        for norm in others:
            added = means.sel(norm=norm) - means.sel(norm=baseline)
            label = name if len(others) == 1 else f"{name}: {norm}"
            rows[label] = dict(zip(added.learning_rate.values.tolist(), added.values.tolist()))
    rates = sorted({rate for row in rows.values() for rate in row} - {"best"}, key=float)
    header = [*rates, "best"]
    return header, [(label, [row.get(rate) for rate in header]) for label, row in rows.items()]


def accuracy(studies: Mapping[str, xr.Dataset]) -> Figure:
    """Test accuracy against step, of every network of every study at its best rate."""
    marks: list[Mark] = targets()
    first = 0
    for dataset in studies.values():
        _, runs = choices(dataset)[-1]
        marks += curves(100 * judged(runs), first=first)
        first += dataset.norm.size
    y = score_axis(_of_other_score(studies), f"test {_score(studies)}")
    return Figure([Panel(STEP, y, marks)])


def learning_rate(studies: Mapping[str, xr.Dataset]) -> Figure:
    """Final test accuracy against learning rate, of every network of every study."""
    marks: list[Mark] = []
    for dataset in studies.values():
        final = 100 * final_accuracy(dataset).transpose("norm", "seed", "learning_rate")
        for runs in final.values:
            marks.append(Curve(len(marks), dataset.learning_rate.values, runs, points=True))
    rates = np.unique(np.concatenate([d.learning_rate.values for d in studies.values()]))
    x = Axis("learning rate", "log", ticks=ticks_of(rates))
    y = score_axis(_of_other_score(studies), f"test {_score(studies)} at the last step")
    return Figure([Panel(x, y, marks)])


def _score(studies: Mapping[str, xr.Dataset]) -> str:
    """Returns what all networks are judged by, `score` if that differs."""
    scores = {score_name(dataset) for dataset in studies.values()}
    return scores.pop() if len(scores) == 1 else "score"


def _of_other_score(studies: Mapping[str, xr.Dataset]) -> xr.Dataset:
    """Returns a study that has another score than accuracy, if there is one."""
    return min(studies.values(), key=lambda dataset: "test_accuracy" in dataset)


def _names(directories: Iterable[Path]) -> list[str]:
    """The folders' own names, or their paths where two have the same."""
    directories = list(directories)
    names = [printable(directory.resolve().name) for directory in directories]
    return names if len(set(names)) == len(names) else [printable(str(d)) for d in directories]
