"""The figure of a claim: what was measured, with its spread over seeds, beside what should come."""

import textwrap
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from experiments.papers.claim import Line, Outcome, Plot
from experiments.report.figures import MARKERS, styled
from experiments.report.figures import save as save_plain
from experiments.report.looks import COLOURS, INK, MUTED, PAPER, colours_of

_PANEL = (4.6, 3.4)  # inches
_FEW = 9
_DARK = {PAPER: "#0d1117", INK: "#e6edf3", MUTED: "#9aa4af"}


@styled
def draw(outcome: Outcome) -> Figure:
    """One panel per plot: a line is the mean over seeds, its band from smallest to largest.

    What is expected is dashed.
    """
    count = len(outcome.plots)
    figure = Figure(figsize=(_PANEL[0] * count, _PANEL[1]), layout="constrained")
    for axes, plot in zip(figure.subplots(1, count, squeeze=False)[0], outcome.plots):
        _panel(axes, plot)
    return figure


def save(figure: Figure, path: Path) -> None:
    """Write `figure` as SVG that is dark where the reader's screen is, the same bytes each time."""
    save_plain(figure, path)
    rules = [
        f'[style*="{kind}: {light}"] {{ {kind}: {dark} !important }}'
        for light, dark in _DARK.items()
        for kind in ("fill", "stroke")
    ]
    style = f"<style>@media (prefers-color-scheme: dark) {{ {' '.join(rules)} }}</style>"
    text = path.read_text(encoding="utf-8")
    path.write_text(text.replace("<defs>", f"{style}\n <defs>", 1), encoding="utf-8")


def _panel(axes: Axes, plot: Plot) -> None:
    style = "_" if plot.categories else "--"
    colours = colours_of(line.label for line in plot.lines if not line.expected)
    colour = MUTED
    for line in plot.lines:
        if line.expected:
            # In the colour of the measured line before it.
            axes.plot(np.asarray(line.x), np.asarray(line.y), style, color=colour, markersize=14)
        else:
            place = colours[line.label]
            colour = COLOURS[place % len(COLOURS)]
            _measured(axes, line, place, joined=not plot.categories)
    if any(line.expected for line in plot.lines):
        axes.plot([], [], style, color=MUTED, label="expected")
    if "y" in plot.log:
        axes.set_yscale("log")
    _x_axis(axes, plot)
    axes.set(title=plot.title, xlabel=plot.x_label, ylabel=plot.y_label)
    axes.legend(fontsize=8)


def _x_axis(axes: Axes, plot: Plot) -> None:
    if plot.categories:
        labels = [textwrap.fill(name, 12) for name in plot.categories]
        axes.set_xticks(range(len(labels)), labels, fontsize=8)
        axes.set_xlim(-0.5, len(labels) - 0.5)
    if "x" in plot.log:
        axes.set_xscale("log")
        places = np.unique(np.concatenate([np.asarray(line.x) for line in plot.lines]))
        if len(places) <= _FEW:  # otherwise powers of ten, and what is between them overlaps
            axes.set_xticks(places, [f"{place:g}" for place in places], fontsize=8)
            axes.set_xticks([], minor=True)


def _measured(axes: Axes, line: Line, index: int, *, joined: bool) -> None:
    colour, marker = COLOURS[index % len(COLOURS)], MARKERS[index % len(MARKERS)]
    values = np.atleast_2d(line.y)
    # A run that diverged has no value and no line there.
    values = np.where(np.isfinite(values), values, np.nan)
    some = ~np.isnan(values).all(axis=0)
    x, values = np.asarray(line.x)[some], values[:, some]
    mean, low, high = (f(values, axis=0) for f in (np.nanmean, np.nanmin, np.nanmax))
    look: Any = {"color": colour, "marker": marker, "label": line.label}
    if not joined:
        axes.errorbar(x, mean, [mean - low, high - mean], linestyle="none", capsize=3, **look)
        return
    axes.plot(x, mean, markevery=max(1, len(x) // 12), **look)
    axes.fill_between(x, low, high, alpha=0.18, linewidth=0, color=colour)
