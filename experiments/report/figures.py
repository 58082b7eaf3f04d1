"""Figures drawn for paper by matplotlib: a study's dataset in, a matplotlib Figure out.

What a figure shows is said in `charts`; here are its looks. Networks differ in colour (Okabe and
Ito's palette), dash and marker, so that a figure survives colour blindness and a grey printer.
"""

import textwrap
import warnings
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import LogFormatter

from experiments.report import specification as spec
from experiments.report.captions import CAPTIONS
from experiments.report.charts import CHARTS, OF_ALL_RATES
from experiments.report.looks import COLOURS, INK, MUTED, PAPER, PATTERNS, RULE, Network, networks
from experiments.report.runs import choices, score_name

DASHES = ("-", (0, (5, 1.5)), (0, (1.5, 1.5)), (0, (6, 1.5, 1.5, 1.5)))
assert len(DASHES) == PATTERNS
MARKERS = "osD^vPX"
STYLE: dict[Any, Any] = {
    "font.size": 9.5,
    "axes.titlesize": 9.5,
    "axes.labelsize": 9.5,
    "axes.titlelocation": "left",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "axes.edgecolor": MUTED,
    "axes.labelcolor": INK,
    "text.color": INK,
    "xtick.color": MUTED,
    "ytick.color": MUTED,
    "xtick.labelcolor": INK,
    "ytick.labelcolor": INK,
    "grid.color": RULE,
    "grid.linewidth": 0.6,
    "figure.facecolor": PAPER,
    "axes.facecolor": PAPER,
    "legend.frameon": False,
    "lines.linewidth": 1.5,
    "lines.markersize": 4.5,
    "figure.titlesize": 11.5,
    "figure.titleweight": "bold",
    # Text stays text, searchable and light; the salt makes equal figures equal files.
    "svg.fonttype": "none",
    "svg.hashsalt": "jbn",
}
styled = matplotlib.rc_context(STYLE)
_NINES = (0, 50, 80, 90, 95, 98, 99, 99.5, 99.8)


@styled
def save(figure: Figure, path: Path) -> None:
    """Write `figure` as SVG, the same bytes for the same figure."""
    figure.savefig(
        path, format="svg", metadata=dict.fromkeys(("Creator", "Date", "Format", "Type"))
    )


@styled
def draw(name: str, dataset: xr.Dataset) -> Figure:
    """Returns the figure `name` of `charts`: at the same rate, then at each network's best."""
    chart, several = CHARTS[name], choices(dataset)
    if name in OF_ALL_RATES:
        blocks = [("", chart(dataset))]
    else:
        blocks = [(title, chart(runs)) for title, runs in several]
    title = CAPTIONS[name].about(score_name(dataset)).title
    figure, axes = _grid([block for _, block in blocks], title)
    shown = networks(dataset)
    names = _names(blocks[0][1], shown)
    for (subtitle, block), grid in zip(blocks, axes):
        for panel, ax in zip(block.panels, grid):
            _panel(ax, panel, shown, at_ends=not names)
            words = ", ".join(filter(None, (panel.title, subtitle)))
            ax.set_title(textwrap.fill(words, 40 if block.columns < 3 else 28))
        if block.shared:
            _share(grid)
        for ax in grid[1:]:
            same = ax.get_ylabel() == grid[0].get_ylabel()
            if same and ax.get_position().x0 > grid[0].get_position().x0 + 0.01:
                ax.set_ylabel("")
    if names:
        _legend(figure, names, shown)
    return figure


def _names(block: spec.Figure, shown: Sequence[Network]) -> dict[int, str]:
    """Returns each network's name in a legend; none where one has several, at its lines' ends."""
    names: dict[int, str] = {}
    curves = [m for panel in block.panels for m in panel.marks if isinstance(m, spec.Curve)]
    for mark in curves:
        name = mark.label or shown[mark.network].name
        if names.setdefault(mark.network, name) != name:
            return {}
    return names


FIGURES: dict[str, Callable[[xr.Dataset], Figure]] = {name: partial(draw, name) for name in CHARTS}


def _grid(blocks: Sequence[spec.Figure], title: str) -> tuple[Figure, list[list[Axes]]]:
    """Returns panels under a title, for each block a list: beside each other if it has but one."""
    count, columns = len(blocks[0].panels), blocks[0].columns
    beside = count == 1
    columns = len(blocks) if beside else columns
    rows = 1 if beside else len(blocks) * -(-count // columns)
    width = {1: 6.4, 2: 3.9}.get(columns, 2.9)
    # A single narrow panel would clip the title.
    size = max(width * columns, 5.5), (2.9 if columns < 3 else 2.3) * rows + 0.75
    figure = Figure(size, layout="constrained")
    figure.suptitle(title, x=0.01, ha="left")
    flat = list(figure.subplots(rows, columns, squeeze=False).flat)
    if beside:
        return figure, [[ax] for ax in flat]
    each = len(flat) // len(blocks)
    grids = [flat[i * each : (i + 1) * each] for i in range(len(blocks))]
    for ax in [ax for grid in grids for ax in grid[count:]]:
        ax.remove()
    return figure, [grid[:count] for grid in grids]


def _panel(ax: Axes, panel: spec.Panel, shown: Sequence[Network], *, at_ends: bool) -> None:
    curves = [mark for mark in panel.marks if isinstance(mark, spec.Curve)]
    there = [mark.x[np.isfinite(mark.runs).any(0)] for mark in curves]
    _scale(ax, "x", panel.x, most=_most(there))
    _scale(ax, "y", panel.y, most=_most([mark.runs for mark in curves]))
    for mark in panel.marks:
        if isinstance(mark, spec.Level):
            ax.axhline(mark.y, color=MUTED, linewidth=0.8, linestyle=(0, (4, 3)))
        elif isinstance(mark, spec.Curve):
            _curve(ax, mark, shown[mark.network], mark.label if at_ends else "")
        elif isinstance(mark, spec.Marks):
            _marks(ax, mark, shown[mark.network])
    if panel.x.steps:
        last = max((m.x[-1] for m in panel.marks if isinstance(m, spec.Curve)), default=1)
        ax.set_xlim(-0.02 * last, 1.02 * max(last, 1))
    if panel.y.scale != "nines":  # whose ticks say as much
        look: dict[str, Any] = {"va": "bottom", "ha": "right", "fontsize": 7.5}
        for at in (m for m in panel.marks if isinstance(m, spec.Level) and m.label):
            ax.text(0.99, at.y, at.label, transform=ax.get_yaxis_transform(), **look)
    if at_ends:
        ax.margins(x=0.12)
        ax.autoscale(axis="x")


def _curve(ax: Axes, mark: spec.Curve, network: Network, label: str) -> None:
    colour = COLOURS[network.colour % len(COLOURS)]
    look: dict[str, Any] = {"color": colour, **_dash(mark, network)}
    x, runs = mark.x * (1 + mark.shift), mark.runs
    mean, low, high = summary(mark)
    if mark.every or mark.points:
        ax.plot(x, runs.T, "." if mark.points else "-", color=colour, alpha=0.4, linewidth=0.8)
    else:
        ax.fill_between(x, low, high, color=colour, alpha=0.18, linewidth=0)
    known = np.flatnonzero(np.isfinite(mean))
    if known.size:
        ax.plot(x, mean, **look)
    if label and known.size:
        _beside(ax, float(x[known[-1]]), float(mean[known[-1]]), label)


def _dash(mark: spec.Curve, network: Network) -> dict[str, Any]:
    if mark.dash:
        return {"linestyle": "-" if mark.dash == "solid" else ":"}
    marker = MARKERS[network.dash % len(MARKERS)]
    every = None if mark.points else (0.05 * network.dash % 0.2, 0.2)
    dashes = DASHES[network.dash % len(DASHES)]
    return {"linestyle": dashes, "marker": marker, "markevery": every}


def summary(mark: spec.Curve) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Returns mean, smallest and largest of a curve's runs; geometric where every run must be."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # of slices without any value
        mean = np.exp(np.log(mark.runs).mean(0)) if mark.every else np.nanmean(mark.runs, axis=0)
        return mean, np.nanmin(mark.runs, axis=0), np.nanmax(mark.runs, axis=0)


def _marks(ax: Axes, mark: spec.Marks, network: Network) -> None:
    look: dict[str, Any] = {"linestyle": "none", "color": COLOURS[network.colour % len(COLOURS)]}
    if mark.shape == "cross":
        look |= {"marker": "x", "markersize": 6, "markeredgewidth": 1.8}
    else:
        look |= {"marker": "d", "markersize": 6.5, "markeredgecolor": PAPER}
    x = mark.x * (1 + mark.shift)
    ax.plot(x, mark.y, **look)
    for at, height, label in zip(x, mark.y, mark.labels):
        if label:
            _beside(ax, at, height, label)


def _most(arrays: Sequence[np.ndarray]) -> float:
    known = [array[np.isfinite(array)] for array in arrays]
    return max((float(array.max()) for array in known if array.size), default=0.0)


def _scale(ax: Axes, which: str, axis: spec.Axis, most: float) -> None:
    own = ax.xaxis if which == "x" else ax.yaxis
    ax.set(**{f"{which}label": textwrap.fill(axis.label, 34)})
    limits = axis.limits
    if axis.scale == "nines":
        getattr(ax, f"set_{which}scale")("function", functions=(_nines, _from_nines))
        own.set_ticks(_NINES, [f"{at:g}" for at in _NINES])
        own.set_ticks([], minor=True)
    elif axis.scale == "log":
        getattr(ax, f"set_{which}scale")("log")
        for set_formatter in (own.set_major_formatter, own.set_minor_formatter):
            set_formatter(_PlainLog(minor_thresholds=(1.2, 0.5)))
    if axis.ticks:
        own.set_ticks([at for at, _ in axis.ticks], [label for _, label in axis.ticks])
        own.set_ticks([], minor=True)
        ax.margins(x=0.09) if which == "x" else ax.margins(y=0.09)
    if limits and axis.scale == "nines":
        limits = limits[0], spec.top_of_nines(most)
    if limits:
        getattr(ax, f"set_{which}lim")(*limits)
    elif axis.zero:
        getattr(ax, f"set_{which}lim")(**{"bottom" if which == "y" else "left": 0})


def _nines(percent: Any) -> Any:
    return -np.log10(100 - np.minimum(np.asarray(percent, float), spec.MOST_NINES))


def _from_nines(place: Any) -> Any:
    return 100 - 10 ** -np.asarray(place, float)


class _PlainLog(LogFormatter):
    """`0.01`, not a power of ten: readable in any font, and by a screen reader."""

    def __call__(self, x: float, pos: int | None = None) -> str:
        return f"{x:g}" if super().__call__(x, pos) else ""


def _share(grid: list[Axes]) -> None:
    ends = np.array([ax.get_ylim() for ax in grid])
    for ax in grid:
        ax.set_ylim(ends[:, 0].min(), ends[:, 1].max())


def _beside(ax: Axes, x: float, y: float, text: str) -> None:
    ax.annotate(text, (x, y), (6, 0), textcoords="offset points", va="center", fontsize=8)


def _legend(figure: Figure, names: Mapping[int, str], shown: Sequence[Network]) -> None:
    handles = []
    for number, name in names.items():
        network = shown[number]
        colour = COLOURS[network.colour % len(COLOURS)]
        handles.append(Line2D([], [], color=colour, label=name, **_dash(_ANY, network)))
    longest = max(map(len, names.values()))
    columns = max(1, int(figure.get_figwidth() / (0.75 + 0.075 * longest)))  # inches
    figure.legend(handles=handles, loc="outside lower left", ncols=columns, handlelength=3.2)


_ANY = spec.Curve(0, np.zeros(0), np.zeros((0, 0)))
