"""The figures of a report, one function each: a study's dataset in, a matplotlib Figure out.

A line is the mean over seeds and its band runs from the smallest seed to the largest; diverged runs
are in neither. Norms differ in colour (Okabe and Ito's palette), dash and marker, so that a figure
survives colour blindness and a grey printer.
"""

import textwrap
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import matplotlib
import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import LogFormatter, PercentFormatter

from experiments.report.captions import CAPTIONS
from experiments.report.runs import (
    best_learning_rates,
    choices,
    failed_runs,
    final_accuracy,
    judged,
    score_name,
    steps_to,
)
from experiments.report.summary import TARGETS

INK, MUTED, RULE, PAPER = "#1b1f24", "#59636e", "#d8dde3", "#ffffff"
COLOURS = ("#d55e00", "#0072b2", "#009e73", "#cc79a7", "#b87f00", "#2f8fc7", INK)
DASHES = ("-", (0, (5, 1.5)), (0, (1.5, 1.5)), (0, (6, 1.5, 1.5, 1.5)))
MARKERS = "osD^vPX"
CROSS = {"markersize": 6, "markeredgewidth": 1.8}
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


@styled
def save(figure: Figure, path: Path) -> None:
    """Write `figure` as SVG, the same bytes for the same figure."""
    figure.savefig(
        path, format="svg", metadata=dict.fromkeys(("Creator", "Date", "Format", "Type"))
    )


@styled
def accuracy(dataset: xr.Dataset) -> Figure:
    """Test accuracy against step, at the same rate and at each network's best."""
    pair = choices(dataset)
    figure, axes = _grid(1, len(pair), _title(dataset, "accuracy"), sharey="row")
    for ax, (title, runs) in zip(axes[0], pair):
        _curves(ax, judged(runs))
        ax.set(title=title, xlabel="step", ylim=(0, 1.02))
        ax.yaxis.set_major_formatter(PercentFormatter(1, symbol=""))
    axes[0, 0].set_ylabel(f"test {score_name(dataset)} (%)")
    return _with_legend(figure, dataset)


@styled
def loss(dataset: xr.Dataset) -> Figure:
    """Test and training loss against step, at the same rate and at each network's best."""
    pair = choices(dataset)
    figure, axes = _grid(2, len(pair), _title(dataset, "loss"), sharey="row")
    for column, (title, runs) in enumerate(pair):
        for ax, name in zip(axes[:, column], ("test_loss", "train_loss")):
            _curves(ax, runs[name])
            _log(ax, runs[name])
            ax.set(title=title, xlabel="step", ylabel="" if column else _label(runs[name]))
    return _with_legend(figure, dataset)


@styled
def learning_rate(dataset: xr.Dataset) -> Figure:
    """Final test accuracy against learning rate; crosses are diverged runs."""
    title = _title(dataset, "learning_rate")
    figure, axes = _grid(1, 1, title, width=7.6, height=3.6)
    ax, rates = axes[0, 0], dataset.learning_rate.values
    norms = dataset.norm.values
    for i, norm in enumerate(norms):
        runs, colour = dataset.sel(norm=norm), _look(i)["color"]
        final, row = final_accuracy(runs).transpose("learning_rate", "seed"), -0.07 * (i + 1)
        # A little apart, or the seeds of one norm hide those of the next.
        x = rates * 1.04 ** (i - (len(norms) - 1) / 2)
        ax.plot(x, final.mean("seed"), **_look(i))
        ax.plot(x, final, ".", color=colour, alpha=0.5)
        for run in failed_runs(runs):
            lost = final.sel(learning_rate=run["learning_rate"], seed=run["seed"])
            at = x[rates == run["learning_rate"]]
            ax.plot(at, lost if run["by"] != "loss" else row, "x", color=colour, **CROSS)
        for at, count in zip(x, (runs.diverged_at >= 0).sum("seed").values):
            if count:
                _beside(ax, at, row, f"{count} of {final.seed.size}")
    floor = -0.07 * (len(norms) + 0.9)
    ax.axhspan(floor, -0.025, color=RULE, alpha=0.45, linewidth=0)
    ax.set(xscale="log", xlabel="learning rate", ylim=(floor, 1.03))
    ax.set_ylabel(f"test {score_name(dataset)} at the last step (%)")
    ax.set_xticks(rates, [f"{rate:g}" for rate in rates])
    ax.set_xticks([], minor=True)
    ax.set_yticks(np.append(floor / 2, np.linspace(0, 1, 6)))
    ax.set_yticklabels(["loss not finite", *(f"{percent}" for percent in range(0, 101, 20))])
    ax.margins(x=0.09)
    return _with_legend(figure, dataset)


@styled
def steps(dataset: xr.Dataset) -> Figure:
    """Steps to each target accuracy, a point per seed; crosses are runs that never arrive."""
    pair = choices(dataset)
    title, target = _title(dataset, "steps"), f"target test {score_name(dataset)} (%)"
    figure, axes = _grid(1, len(pair), title, sharey="row", height=3.0)
    first, last = np.maximum(dataset.step.values[[min(1, dataset.step.size - 1), -1]], 1)
    for ax, (subtitle, runs) in zip(axes[0], pair):
        for i in range(dataset.norm.size):
            for x, target in enumerate(TARGETS):
                beside = x + 0.5 * ((i + 0.5) / dataset.norm.size - 0.5)
                arrivals = steps_to(judged(runs).isel(norm=i), target).values
                _arrivals(ax, beside, arrivals, 1.5 * last, _look(i))
        ax.axhspan(1.15 * last, 2.2 * last, color=RULE, alpha=0.45, linewidth=0)
        ax.text(-0.46, 1.5 * last, "never", va="center", fontsize=8)
        ax.set(title=subtitle, xlabel=target, xlim=(-0.5, len(TARGETS) - 0.5))
        ax.set_xticks(range(len(TARGETS)), [f"{100 * target:.0f}" for target in TARGETS])
        ax.set(yscale="log", ylim=(0.8 * first, 2.2 * last))
        _plain_ticks(ax)
    axes[0, 0].set_ylabel("training steps")
    return _with_legend(figure, dataset)


@styled
def gradient_norm(dataset: xr.Dataset) -> Figure:
    """Gradient norm of each layer against step."""
    return _layered(dataset, "gradient_norm", _title(dataset, "gradient_norm"), log=True)


@styled
def gradient_variation(dataset: xr.Dataset) -> Figure:
    """Variation of each layer's gradient norm over steps, against step."""
    return _layered(dataset, "gradient_norm_cv", _title(dataset, "gradient_variation"))


@styled
def gradient_noise(dataset: xr.Dataset) -> Figure:
    """Noise of each layer's gradient over batches, against step."""
    return _layered(dataset, "gradient_noise", _title(dataset, "gradient_noise"))


@styled
def update_ratio(dataset: xr.Dataset) -> Figure:
    """Size of each layer's update relative to its weights, against step."""
    return _layered(dataset, "update_ratio", _title(dataset, "update_ratio"), log=True)


@styled
def gradient_cosine(dataset: xr.Dataset) -> Figure:
    """Cosine between successive gradients against step."""
    pair = choices(dataset)
    figure, axes = _grid(1, len(pair), _title(dataset, "gradient_cosine"), sharey="row")
    for ax, (title, runs) in zip(axes[0], pair):
        ax.axhline(0, color=MUTED, linewidth=0.8)
        _curves(ax, runs.gradient_cosine)
        ax.set(title=title, xlabel="step")
    axes[0, 0].set_ylabel(_label(dataset.gradient_cosine))
    return _with_legend(figure, dataset)


@styled
def percentiles(dataset: xr.Dataset) -> Figure:
    """Percentiles of what enters the last hidden activation, against step; a panel per network."""
    pair, norms = choices(dataset), dataset.norm.values
    title = _title(dataset, "percentiles")
    figure, axes = _grid(len(pair), len(norms), title, sharey="row")
    for row, (subtitle, runs) in zip(axes, pair):
        for i, (ax, norm) in enumerate(zip(row, norms)):
            for j, percentile in enumerate(runs.percentile.values):
                values = runs.activation_percentile.isel(norm=i).sel(percentile=percentile)
                # The dash tells percentiles apart here: the panel already names the norm.
                dash = "-" if percentile == 50 else DASHES[1 + j % (len(DASHES) - 1)]
                _curve(ax, values, color=_look(i)["color"], linestyle=dash)
                mean = values.mean("seed").dropna("step")
                if mean.size:
                    _beside(ax, mean.step.values[-1], mean.values[-1], f"{percentile:g} %")
            ax.set(title=textwrap.fill(f"{norm}, {subtitle}", 42), xlabel="step")
            ax.set_xlim(right=1.2 * max(float(runs.step[-1]), 1))
        row[0].set_ylabel(_label(dataset.activation_percentile))
    return figure


FIGURES: dict[str, Callable[[xr.Dataset], Figure]] = {
    "accuracy": accuracy,
    "loss": loss,
    "learning_rate": learning_rate,
    "steps": steps,
    "gradient_norm": gradient_norm,
    "gradient_variation": gradient_variation,
    "gradient_noise": gradient_noise,
    "gradient_cosine": gradient_cosine,
    "update_ratio": update_ratio,
    "percentiles": percentiles,
}


def _layered(dataset: xr.Dataset, name: str, title: str, *, log: bool = False) -> Figure:
    """A panel per layer, at most four in a row: first all at the same rate, then at the best."""
    pair, layers = choices(dataset), dataset.layer.values
    columns = min(4, len(layers))
    rows = -(-len(layers) // columns)
    figure, axes = _grid(rows * len(pair), columns, title, width=2.7, height=2.3, sharey="all")
    for block, (subtitle, runs) in enumerate(pair):
        panels = axes[block * rows : (block + 1) * rows]
        for ax, layer in zip(panels.flat, layers):
            _curves(ax, runs[name].sel(layer=layer))
            ax.set(title=textwrap.fill(f"{layer}, {subtitle}", 34), xlabel="step")
        for ax in panels.flat[len(layers) :]:
            ax.remove()
        for ax in panels[:, 0]:
            ax.set_ylabel(_label(dataset[name]))
    if log:
        _log(axes[0, 0], dataset[name])
    else:
        axes[0, 0].set_ylim(bottom=0)
    return _with_legend(figure, dataset)


def _title(dataset: xr.Dataset, name: str) -> str:
    return CAPTIONS[name].about(score_name(dataset)).title


def _grid(
    rows: int,
    columns: int,
    title: str,
    *,
    width: float = 3.8,
    height: float = 2.6,
    sharey: Literal["none", "row", "all"] = "none",
) -> tuple[Figure, np.ndarray]:
    """`rows` by `columns` panels of `width` by `height` inches under a title."""
    # A single narrow panel would clip the title.
    figure = Figure((max(width * columns, 5.5), height * rows + 0.75), layout="constrained")
    figure.suptitle(title, x=0.01, ha="left")
    return figure, figure.subplots(rows, columns, squeeze=False, sharey=sharey)


def _look(i: int) -> dict[str, Any]:
    """Colour, dash and marker of the i-th norm."""
    return {
        "color": COLOURS[i % len(COLOURS)],
        "linestyle": DASHES[i % len(DASHES)],
        "marker": MARKERS[i % len(MARKERS)],
    }


def _curves(ax: Axes, quantity: xr.DataArray) -> None:
    """One line with its band for each norm of `quantity`, dims `(norm, seed, step)`."""
    for i in range(quantity.norm.size):
        _curve(ax, quantity.isel(norm=i), markevery=(0.05 * i, 0.2), **_look(i))


def _curve(ax: Axes, quantity: xr.DataArray, **look: Any) -> None:
    step, mean = quantity.step.values, quantity.mean("seed")
    ax.set_xlim(-0.02 * step[-1], 1.02 * max(step[-1], 1))
    if mean.isnull().all():
        return
    low, high = quantity.min("seed"), quantity.max("seed")
    ax.fill_between(step, low, high, color=look["color"], alpha=0.18, linewidth=0)
    ax.plot(step, mean, **look)


def _arrivals(ax: Axes, x: float, steps: np.ndarray, never: float, look: dict[str, Any]) -> None:
    """Each seed's steps to one target around `x`; those that never arrive counted at `never`."""
    spread = x + np.linspace(-0.06, 0.06, steps.size)
    ax.plot(spread, steps, ".", color=look["color"], alpha=0.55)
    missing = np.isnan(steps)
    if missing.any():
        ax.plot(x, never, "x", color=look["color"], **CROSS)
        _beside(ax, x, never, f"{missing.sum()}/{missing.size}")
    else:
        ax.plot(x, steps.mean(), look["marker"], color=look["color"], markersize=8)


def _beside(ax: Axes, x: float, y: float, text: str) -> None:
    ax.annotate(text, (x, y), (6, 0), textcoords="offset points", va="center", fontsize=8)


def _label(quantity: xr.DataArray) -> str:
    """The quantity's own name with its unit, broken so that it fits beside a panel."""
    name, units = quantity.attrs.get("long_name", str(quantity.name)), quantity.attrs.get("units")
    return textwrap.fill(name if units in (None, "", "1") else f"{name} ({units})", 30)


def _log(ax: Axes, quantity: xr.DataArray) -> None:
    """A logarithmic axis, where there is anything positive to put on it."""
    if bool((quantity > 0).any()):
        ax.set_yscale("log")
        _plain_ticks(ax)


def _plain_ticks(ax: Axes) -> None:
    for set_formatter in (ax.yaxis.set_major_formatter, ax.yaxis.set_minor_formatter):
        set_formatter(_PlainLog(minor_thresholds=(1.2, 0.5)))


class _PlainLog(LogFormatter):
    """`0.01`, not a power of ten: readable in any font, and by a screen reader."""

    def __call__(self, x: float, pos: int | None = None) -> str:
        return f"{x:g}" if super().__call__(x, pos) else ""


def _with_legend(figure: Figure, dataset: xr.Dataset) -> Figure:
    best = best_learning_rates(dataset).values
    handles = [
        Line2D([], [], **_look(i), label=f"{norm} (best rate {rate:g})")
        for i, (norm, rate) in enumerate(zip(dataset.norm.values, best))
    ]
    longest = max(len(str(handle.get_label())) for handle in handles)
    columns = max(1, int(figure.get_figwidth() / (0.75 + 0.075 * longest)))  # inches
    figure.legend(handles=handles, loc="outside lower left", ncols=columns, handlelength=3.2)
    return figure
