"""Several studies on one page: a row and a curve for each network of each, at its best rate.

Networks of different studies meet only here, where nothing is tested: each number keeps the
interval of its own study.
"""

import shlex
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np
import xarray as xr

from experiments.report.captions import Caption
from experiments.report.figures import COLOURS, PAPER
from experiments.report.pages import render
from experiments.report.panels import Figure, curves, line, panels, verbatim
from experiments.report.runs import (
    at_rates,
    best_learning_rates,
    choices,
    final_accuracy,
    judged,
    score_name,
)
from experiments.report.summary import summarize
from experiments.report.write import Rows, load_study, network_rows
from experiments.system.console import printable
from experiments.system.files import write_whole

CAPTIONS = {
    "gain": Caption(
        "What the norm adds, at every learning rate",
        "Test accuracy after training, of a study's network less that of its first one, in "
        "percentage points, mean over seeds; a run whose loss was not finite counts as guessing. "
        "Last: each of the two at its own best rate.",
        (),
    ),
    "accuracy": Caption(
        "Test accuracy while training",
        "Each network at the best learning rate of its own study; the band runs from the smallest "
        "seed to the largest.",
        (),
    ),
    "learning_rate": Caption(
        "Test accuracy after training, at every learning rate",
        "Mean over the seeds whose loss stayed finite.",
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
    drawings = {"gain": gain, "accuracy": accuracy, "learning_rate": learning_rate}
    if all(dataset.norm.size == 1 for dataset in studies.values()):
        del drawings["gain"]
    scores = {score_name(dataset) for dataset in studies.values()}
    score = scores.pop() if len(scores) == 1 else "score"
    figures = {name: [draw(studies)] for name, draw in drawings.items()}
    page = render(
        "comparison.html.jinja",
        "comparison",
        figures,
        claims={name: dataset.attrs.get("claim", "") for name, dataset in studies.items()},
        seeds={name: dataset.seed.size for name, dataset in studies.items()},
        table=comparison_table(studies),
        captions={name: CAPTIONS[name].about(score) for name in figures},
        measured={},
        command=printable(f"python -m experiments report {shlex.join(map(str, directories))}"),
    )
    out = Path(out)
    write_whole(out, page.encode())
    return out


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


def gain(studies: Mapping[str, xr.Dataset]) -> Figure:
    """Accuracy of each network less that of its study's first, rate by rate, as a map."""
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
            rows[label] = dict(zip(added.learning_rate.values, added.values))
    rates = sorted({rate for row in rows.values() for rate in row} - {"best"}, key=float)
    values = np.array(
        [[row.get(rate, np.nan) for rate in [*rates, "best"]] for row in rows.values()]
    )
    figure, reach = panels([""], 1), float(np.nanmax(np.abs(values)))
    figure.add_heatmap(
        x=[*rates, "best"],
        y=[verbatim(label) for label in rows],
        z=values.round(2),
        zmin=-reach,
        zmax=reach,
        colorscale=[(0, COLOURS[0]), (0.5, PAPER), (1, COLOURS[1])],
        texttemplate="%{z:+.1f}",
        hovertemplate="%{y}, rate %{x}: %{z:+.2f} points<extra></extra>",
        showscale=False,
        showlegend=False,
        name="",
    )
    figure.update_xaxes(type="category", title="learning rate")
    return figure.update_yaxes(type="category", autorange="reversed", showgrid=False)


def accuracy(studies: Mapping[str, xr.Dataset]) -> Figure:
    """Test accuracy against step, of every network of every study at its best rate."""
    figure, drawn, last = panels([""], 1), 0, 1
    for name, dataset in studies.items():
        _, runs = choices(dataset)[-1]
        named = judged(runs).assign_coords(norm=_labels(name, dataset))
        curves(figure, 0, 100 * named, ".1f", " %", first=drawn)
        drawn, last = drawn + dataset.norm.size, max(last, int(dataset.step[-1]))
    figure.update_xaxes(range=(-0.015 * last, 1.025 * last))
    return figure.update_yaxes(range=(0, 102), ticksuffix=" %")


def learning_rate(studies: Mapping[str, xr.Dataset]) -> Figure:
    """Final test accuracy against learning rate, of every network of every study."""
    figure, drawn = panels([""], 1), 0
    for name, dataset in studies.items():
        final = 100 * final_accuracy(dataset).mean("seed").transpose("norm", "learning_rate")
        for label, mean in zip(_labels(name, dataset), final):
            said = {"hovertemplate": "%{y:.1f} %"}
            line(figure, 0, drawn, label, dataset.learning_rate.values, mean, **said)
            drawn += 1
    rates = np.unique(np.concatenate([d.learning_rate.values for d in studies.values()]))
    ticks = {"tickvals": rates, "ticktext": [f"{rate:g}" for rate in rates]}
    figure.update_xaxes(type="log", title="learning rate", **ticks)
    return figure.update_yaxes(range=(0, 102), ticksuffix=" %")


def _names(directories: Iterable[Path]) -> list[str]:
    """The folders' own names, or their paths where two have the same."""
    directories = list(directories)
    names = [printable(directory.resolve().name) for directory in directories]
    return names if len(set(names)) == len(names) else [printable(str(d)) for d in directories]


def _labels(study: str, dataset: xr.Dataset) -> list[str]:
    return [f"{study}: {norm}" for norm in dataset.norm.values]
