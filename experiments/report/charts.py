"""The page's figures, one function each: runs at one choice of rates in, a plotly Figure out.

They show what `figures` draws for paper, to be hovered over. Panels lie in a grid that the page
may re-arrange, and colours are those of light paper: the page puts its own in their place.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
import xarray as xr

from experiments.report.captions import CAPTIONS
from experiments.report.figures import MUTED, RULE
from experiments.report.panels import (
    STRONG,
    Figure,
    axes,
    colour,
    curves,
    line,
    log,
    panels,
    points,
    symbol,
)
from experiments.report.runs import (
    FAILURES,
    at_rates,
    best_learning_rates,
    failed_runs,
    final_accuracy,
    judged,
    score_name,
    steps_to,
)
from experiments.report.summary import TARGETS
from experiments.study.config import SWEPT, name_of


def accuracy(runs: xr.Dataset) -> Figure:
    """Test accuracy against step."""
    figure = panels([""], 1)
    curves(figure, 0, 100 * judged(runs), ".1f", " %")
    figure.update_yaxes(range=(0, 102), ticksuffix=" %")
    return figure


def loss(runs: xr.Dataset) -> Figure:
    """Test and training loss against step."""
    names = ("test_loss", "train_loss")
    figure = panels([runs[name].attrs.get("long_name", name) for name in names], 2)
    for i, name in enumerate(names):
        curves(figure, i, runs[name], ".3f", " nat")
    return log(figure, runs[names[0]])


def learning_rate(dataset: xr.Dataset) -> Figure:
    """Final test accuracy against learning rate, of a whole study; crosses are diverged runs."""
    figure, rates = panels([""], 1), dataset.learning_rate.values
    row = min(11, 40 / dataset.norm.size)
    floor = -row * (dataset.norm.size + 0.3)
    for i, norm in enumerate(dataset.norm.values):
        runs = dataset.sel(norm=norm)
        final = 100 * final_accuracy(runs).transpose("learning_rate", "seed")
        # A little apart, or the seeds of one norm hide those of the next.
        x = rates * 1.04 ** (i - (dataset.norm.size - 1) / 2)
        _mean_and_runs(figure, 0, i, norm, x, final, [f"rate {rate:g}" for rate in rates])
        lost = failed_runs(runs)
        _losses(figure, i, norm, final, dict(zip(rates, x)), lost, -row * (i + 0.7))
    figure.add_hrect(floor, -2, fillcolor=RULE, opacity=0.4, line_width=0, layer="below")
    figure.update_xaxes(type="log", title="learning rate", tickvals=rates)
    figure.update_xaxes(ticktext=[f"{rate:g}" for rate in rates])
    percents = range(0, 101, 20)
    labels = [*(f"{p} %" for p in percents), "not<br>finite"]
    figure.update_yaxes(range=(floor, 103), tickvals=[*percents, floor / 2], ticktext=labels)
    return figure.update_layout(hovermode="closest")


def values(dataset: xr.Dataset) -> Figure:
    """Final test accuracy against each field that a study has several values of, at best rates."""
    fields = [field for field in SWEPT if field in dataset.coords]
    figure = panels([""] * len(fields), min(2, len(fields)))
    final = 100 * final_accuracy(at_rates(dataset, best_learning_rates(dataset)))
    final, drawn = final.transpose("norm", "seed"), {}
    for panel, field in enumerate(fields):
        x = dataset[field].values
        for name, networks in _joined(dataset, field, fields).items():
            i, at = drawn.setdefault(name, len(drawn)), x[networks]
            said = [f"{field} {value:g}" for value in at]
            _mean_and_runs(figure, panel, i, name, at, final.isel(norm=networks), said)
        ticks = np.unique(x[~np.isnan(x)])
        form = "log" if ticks[0] > 0 and ticks[-1] > 10 * ticks[0] else "linear"
        place = {"anchor": axes(panel)["yaxis"]}
        figure.update_xaxes(title=field, type=form, tickvals=ticks, selector=place)
        figure.update_xaxes(ticktext=[f"{tick:g}" for tick in ticks], selector=place)
    figure.update_yaxes(range=(0, 102), ticksuffix=" %")
    return figure.update_layout(hovermode="closest")


def steps(runs: xr.Dataset) -> Figure:
    """Steps to each target accuracy, a point per seed; crosses are runs that never arrive."""
    figure, norms = panels([""], 1), runs.norm.values
    last = max(int(runs.step[-1]), 1)
    for i, norm in enumerate(norms):
        at = np.arange(len(TARGETS)) + 0.5 * ((i + 0.5) / len(norms) - 0.5)
        arrivals = np.stack([steps_to(judged(runs).isel(norm=i), t).values for t in TARGETS])
        look = {"size": 11, "symbol": symbol(i)}
        said = {"hovertemplate": "mean %{y:.0f} steps", "showlegend": True}
        points(figure, 0, i, norm, at, arrivals.mean(1), look, **said)
        spread = at[:, None] + np.linspace(-0.06, 0.06, runs.seed.size)
        look = {"color": colour(i) + STRONG, "size": 5}
        said = {"hovertemplate": "%{y:.0f} steps"}
        points(figure, 0, i, norm, np.ravel(spread), np.ravel(arrivals), look, **said)
        late = [(x, n) for x, n in zip(at, np.isnan(arrivals).sum(1)) if n]
        said = [f"{n} of {runs.seed.size} seeds never arrive" for _, n in late]
        # Beside a crowd of crosses there is no room; pointing at one says as much.
        counts = [f"{n}/{runs.seed.size}" if len(norms) < 4 else "" for _, n in late]
        _crosses(figure, i, norm, [x for x, _ in late], [1.5 * last] * len(late), counts, said)
    figure.add_hrect(1.15 * last, 2.2 * last, fillcolor=RULE, opacity=0.4, line_width=0)
    labels = [f"{100 * target:.0f} %" for target in TARGETS]
    figure.update_xaxes(title=f"target test {score_name(runs)}", tickvals=[*range(len(TARGETS))])
    figure.update_xaxes(ticktext=labels, range=(-0.5, len(TARGETS) - 0.5))
    first = max(int(runs.step[min(1, runs.step.size - 1)]), 1)
    decades = [s for s in (1, 3, 10, 30, 100, 300, 1000, 3000, 10000, 30000) if first <= s <= last]
    ticks = {"tickvals": [*decades, 1.6 * last], "ticktext": [*map(str, decades), "never"]}
    figure.update_yaxes(type="log", range=np.log10([0.7 * first, 2.2 * last]), **ticks)
    return figure.update_layout(hovermode="closest")


def gradient_cosine(runs: xr.Dataset) -> Figure:
    """Cosine between successive gradients against step."""
    figure = panels([""], 1)
    curves(figure, 0, runs.gradient_cosine, ".3f")
    return figure.update_yaxes(zeroline=True, zerolinecolor=MUTED, zerolinewidth=1)


def percentiles(runs: xr.Dataset) -> Figure:
    """Percentiles of what enters the last hidden activation; a panel per network."""
    figure = panels([str(norm) for norm in runs.norm.values], min(3, runs.norm.size))
    for i in range(runs.norm.size):
        for percentile in runs.percentile.values:
            values = runs.activation_percentile.isel(norm=[i]).sel(percentile=percentile)
            middle = bool(percentile == 50)
            look = {"first": i, "dash": "solid" if middle else "dot", "legend": middle}
            curves(figure, i, values, ".2f", f" ({percentile:g} %)", **look)
    return figure.update_yaxes(matches="y")


def layered(name: str, form: str, *, logarithmic: bool = False) -> Callable[[xr.Dataset], Figure]:
    """The chart of the quantity `name`, a panel per layer."""

    def draw(runs: xr.Dataset) -> Figure:
        figure = panels([str(layer) for layer in runs.layer.values], min(4, runs.layer.size))
        for i, layer in enumerate(runs.layer.values):
            curves(figure, i, runs[name].sel(layer=layer), form)
        figure.update_yaxes(matches="y")
        return log(figure, runs[name]) if logarithmic else figure.update_yaxes(rangemode="tozero")

    return draw


CHARTS: dict[str, Callable[[xr.Dataset], Figure]] = {
    "accuracy": accuracy,
    "loss": loss,
    "learning_rate": learning_rate,
    "steps": steps,
    "gradient_norm": layered("gradient_norm", ".3~g", logarithmic=True),
    "gradient_variation": layered("gradient_norm_cv", ".2f"),
    "gradient_noise": layered("gradient_noise", ".2f"),
    "gradient_cosine": gradient_cosine,
    "update_ratio": layered("update_ratio", ".2~e", logarithmic=True),
    "percentiles": percentiles,
}
assert CHARTS.keys() == CAPTIONS.keys()


def _joined(dataset: xr.Dataset, field: str, fields: list[str]) -> dict[str, list[int]]:
    """Positions of the networks that differ in `field` alone, smallest value first, by a name."""
    joined: dict[str, list[int]] = {}
    values = {name: dataset[name].values.tolist() for name in ("label", *fields)}
    for network in np.argsort(dataset[field].values, kind="stable"):
        its = {name: of[network] for name, of in values.items()}
        if not np.isnan(its[field]):
            rest = {f: its[f] for f in fields if f != field and not np.isnan(its[f])}
            joined.setdefault(name_of(its["label"], rest), []).append(int(network))
    return joined


def _mean_and_runs(
    figure: Figure, panel: int, i: int, name: str, x: Any, accuracy: xr.DataArray, said: list[str]
) -> None:
    """A line through the means over seeds of `accuracy` `(x, seed)`, and a point for each run.

    `said` tells in words where each of `x` is.
    """
    line(figure, panel, i, name, x, accuracy.mean("seed"), hovertemplate="%{y:.1f} % (mean)")
    seeds = accuracy.seed.values
    each = [f"{where}, seed {seed}" for where in said for seed in seeds]
    words = {"hovertext": each, "hovertemplate": "%{hovertext}: %{y:.1f} %"}
    look = {"color": colour(i) + STRONG, "size": 5, "symbol": symbol(i)}
    points(figure, panel, i, name, np.repeat(x, len(seeds)), np.ravel(accuracy), look, **words)


def _losses(
    figure: Figure,
    i: int,
    norm: str,
    final: xr.DataArray,
    at: dict[float, float],
    lost: list[dict[str, Any]],
    row: float,
) -> None:
    """Crosses of the diverged runs: one at each accuracy, and in `row` one for each rate's rest."""
    for rate, x in at.items():
        runs = [run for run in lost if run["learning_rate"] == rate]
        for run in runs:
            if run["by"] != "loss":
                y = float(final.sel(learning_rate=rate, seed=run["seed"]))
                said = f"rate {rate:g}, seed {run['seed']}: {FAILURES[run['by']]}"
                _crosses(figure, i, norm, [x], [y], [""], [said])
        steps = [f"seed {run['seed']} at step {run['step']}" for run in runs if run["by"] == "loss"]
        if steps:
            said = f"rate {rate:g}, loss not finite: {', '.join(steps)}"
            _crosses(figure, i, norm, [x], [row], [f"{len(steps)} of {final.seed.size}"], [said])


def _crosses(
    figure: Figure, i: int, norm: str, x: Any, y: Any, labels: list[str], said: list[str]
) -> None:
    look = {"symbol": "x-thin", "size": 8, "line": {"color": colour(i), "width": 2}}
    words = {"text": labels, "textposition": "middle right", "hovertext": said}
    points(figure, 0, i, norm, x, y, look, hovertemplate="%{hovertext}", **words)
