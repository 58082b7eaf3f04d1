"""The figure of a claim: what was measured, with its spread over seeds, beside what should come."""

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from experiments.figures import COLOURS, MARKERS, MUTED, styled
from experiments.papers.claim import Line, Outcome, Plot

_PANEL = (4.6, 3.4)  # inches


@styled
def draw(outcome: Outcome) -> Figure:
    """One panel per plot: a line is the mean over seeds, its band from the smallest to the largest;
    what is expected is dashed."""
    count = len(outcome.plots)
    figure = Figure(figsize=(_PANEL[0] * count, _PANEL[1]), layout="constrained")
    for axes, plot in zip(figure.subplots(1, count, squeeze=False)[0], outcome.plots):
        _panel(axes, plot)
    return figure


def _panel(axes: Axes, plot: Plot) -> None:
    measured = 0
    for line in plot.lines:
        if line.expected:
            # In the colour of the measured line before it.
            colour = COLOURS[(measured - 1) % len(COLOURS)] if measured else MUTED
            axes.plot(np.asarray(line.x), np.asarray(line.y), "--", color=colour)
        else:
            _measured(axes, line, measured)
            measured += 1
    if "x" in plot.log:
        axes.set_xscale("log")
    if "y" in plot.log:
        axes.set_yscale("log")
    if plot.categories:
        axes.set_xticks(range(len(plot.categories)), plot.categories)
    if any(line.expected for line in plot.lines):
        axes.plot([], [], "--", color=MUTED, label="expected")
    axes.set(title=plot.title, xlabel=plot.x_label, ylabel=plot.y_label)
    axes.legend(fontsize=8)


def _measured(axes: Axes, line: Line, index: int) -> None:
    colour = COLOURS[index % len(COLOURS)]
    values = np.atleast_2d(line.y)
    # A run that diverged has no value and no line there.
    values = np.where(np.isfinite(values), values, np.nan)
    some = ~np.isnan(values).all(axis=0)
    x, values = np.asarray(line.x)[some], values[:, some]
    axes.plot(
        x,
        np.nanmean(values, axis=0),
        marker=MARKERS[index % len(MARKERS)],
        markevery=max(1, len(x) // 12),
        label=line.label,
        color=colour,
    )
    if len(values) > 1:
        low, high = np.nanmin(values, axis=0), np.nanmax(values, axis=0)
        axes.fill_between(x, low, high, alpha=0.18, linewidth=0, color=colour)
