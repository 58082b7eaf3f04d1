"""The figure of a claim: what was measured, with its spread over seeds, beside what should come."""

import textwrap
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.collections import PolyCollection
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from matplotlib.transforms import ScaledTranslation

from experiments.papers.claim import Line, Outcome, Plot
from experiments.report.figures import MARKERS, styled
from experiments.report.figures import save as save_plain
from experiments.report.looks import COLOURS, INK, MUTED, PAPER, RULE, colours_of

_PANEL = (4.6, 3.4)  # inches
_ROW = 0.17  # inches, of a legend
_FEW = 9
_LONGEST = 42  # characters of a y label on one line
_DARK = {PAPER: "#0d1117", INK: "#e6edf3", MUTED: "#9aa4af", RULE: "#30363d"}


@styled
def draw(outcome: Outcome) -> Figure:
    """One panel per plot: a line is the mean over seeds, its band from smallest to largest.

    What is expected is dashed. Legends stand below the panels if one of them would cover something.
    """
    count = len(outcome.plots)
    figure = Figure(figsize=(_PANEL[0] * count, _PANEL[1]), layout="constrained")
    for axes, plot in zip(figure.subplots(1, count, squeeze=False)[0], outcome.plots):
        _panel(axes, plot)
    figure.draw_without_rendering()
    if any(_covers(axes) for axes in figure.axes):
        rows = [_put_legend_below(axes) for axes in figure.axes]
        figure.set_figheight(_PANEL[1] + _ROW * max(rows))
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
    axes.set(title=plot.title, xlabel=plot.x_label)
    axes.set_ylabel(textwrap.fill(plot.y_label, _LONGEST))
    axes.legend(fontsize=8)


def _covers(axes: Axes) -> bool:
    """Whether the legend lies over a curve, a marker or a band."""
    legend = axes.get_legend()
    assert legend is not None
    box = legend.get_window_extent()
    for artist in (*axes.get_lines(), *axes.collections):
        single = not hasattr(artist, "get_paths")
        for path in [artist.get_path()] if single else artist.get_paths():  # type: ignore[attr-defined]
            seen = artist.get_transform().transform_path(path).cleaned(remove_nans=True)
            filled = isinstance(artist, PolyCollection)
            if box.count_contains(seen.vertices) or seen.intersects_bbox(box, filled):
                return True
    return False


def _put_legend_below(axes: Axes) -> int:
    """Puts the legend under the x axis and its label; how many rows it has."""
    figure = axes.get_figure()
    assert figure is not None
    handles, labels = axes.get_legend_handles_labels()
    columns = 2 if max(map(len, labels)) * 2 < 60 else 1
    low = axes.bbox.y0 - axes.xaxis.get_tightbbox().y0  # type: ignore[union-attr]
    move = ScaledTranslation(0, -low / figure.dpi - 0.08, figure.dpi_scale_trans)
    axes.legend(
        handles,
        labels,
        fontsize=8,
        ncols=columns,
        loc="upper left",
        bbox_to_anchor=(0, 0),
        bbox_transform=axes.transAxes + move,
        borderaxespad=0,
    )
    return -(-len(labels) // columns)


def _x_axis(axes: Axes, plot: Plot) -> None:
    if plot.categories:
        labels = [textwrap.fill(name, 12) for name in plot.categories]
        axes.set_xticks(range(len(labels)), labels, fontsize=8)
        axes.set_xlim(-0.5, len(labels) - 0.5)
    elif "x" not in plot.log and all(_is_whole(line.x) for line in plot.lines):
        axes.xaxis.set_major_locator(MaxNLocator("auto", steps=[1, 2, 2.5, 5, 10], integer=True))
    if "x" in plot.log:
        axes.set_xscale("log")
        places = np.unique(np.concatenate([np.asarray(line.x) for line in plot.lines]))
        if len(places) <= _FEW:  # otherwise powers of ten, and what is between them overlaps
            axes.set_xticks(places, [f"{place:g}" for place in places], fontsize=8)
            axes.set_xticks([], minor=True)


def _is_whole(values: Any) -> bool:
    return bool(np.all(np.asarray(values) % 1 == 0))


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
