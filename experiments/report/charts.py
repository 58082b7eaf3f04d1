"""The figures of a report, one function each: runs at one choice of rates in, a Figure out.

Each says once, as data, what the page and the files for paper then draw.
"""

from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
import xarray as xr

from experiments.report.arms import best_networks, fields_of, has_arms
from experiments.report.budget import SHOWN, curves_by_seed
from experiments.report.captions import CAPTIONS
from experiments.report.runs import (
    FAILURES,
    at_rates,
    best_learning_rates,
    evaluations,
    failed_runs,
    final_accuracy,
    judged,
    score_name,
    steps_to,
)
from experiments.report.specification import Axis, Curve, Figure, Level, Mark, Marks, Panel
from experiments.report.summary import TARGETS
from experiments.study.config import name_of

STEP = Axis("step", steps=True)
# Percentages, closer together where networks differ at the end.
_GOALS = np.unique(np.concatenate([np.arange(50, 95, 2.5), np.arange(95, 99.8, 0.25)]))


def accuracy(runs: xr.Dataset) -> Figure:
    """Test accuracy against step, with the targets and when they are reached."""
    score = 100 * judged(runs)
    arrivals = [m for i in range(runs.norm.size) for m in _arrival(runs.isel(norm=i), i)]
    marks = [*targets(), *curves(score), *arrivals]
    return Figure([Panel(STEP, score_axis(runs, f"test {score_name(runs)}"), marks)])


def loss(runs: xr.Dataset) -> Figure:
    """Test and training loss against step."""
    panels = []
    for name in ("test_loss", "train_loss"):
        y = Axis(label_of(runs[name]), _log(runs[name]))
        panels.append(Panel(STEP, y, curves(runs[name]), runs[name].attrs.get("long_name", name)))
    return Figure(panels, 2)


def learning_rate(dataset: xr.Dataset) -> Figure:
    """Final test accuracy against learning rate, of a whole study; crosses are failed runs."""
    rates, marks = dataset.learning_rate.values, []
    final = 100 * final_accuracy(dataset).transpose("norm", "seed", "learning_rate")
    for i in range(dataset.norm.size):
        # A little apart, or the seeds of one norm hide those of the next.
        shift = 0.04 * (i - (dataset.norm.size - 1) / 2)
        marks.append(Curve(i, rates, final.values[i], points=True, shift=shift))
        marks += _failures(i, final[i], failed_runs(dataset.isel(norm=i)), shift)
    x = Axis("learning rate", "log", ticks=ticks_of(rates))
    y = score_axis(dataset, f"test {score_name(dataset)} at the last step")
    return Figure([Panel(x, y, marks)])


def values(dataset: xr.Dataset) -> Figure:
    """Final test accuracy against each field that a study has several values of, at best rates."""
    fields, best = fields_of(dataset), {*best_networks(dataset).values()}
    final = 100 * final_accuracy(at_rates(dataset, best_learning_rates(dataset)))
    final, panels = final.transpose("norm", "seed").values, []
    for name in fields:
        x, marks = dataset[name].values, []
        for label, networks in _joined(dataset, name, fields).items():
            runs = final[networks].T
            shown = next((one for one in networks if one in best), networks[0])
            marks.append(Curve(shown, x[networks], runs, label=label, points=True))
        ticks = np.unique(x[~np.isnan(x)])
        spread = "log" if ticks[0] > 0 and ticks[-1] > 10 * ticks[0] else "linear"
        axis = Axis(name.replace("_", " "), spread, ticks=ticks_of(ticks))
        y = score_axis(dataset, f"test {score_name(dataset)} at the last step")
        panels.append(Panel(axis, y, marks))
    return Figure(panels, min(2, len(fields)), arms=True)


def budget(dataset: xr.Dataset) -> Figure:
    """Score to expect of the best of so many settings, of each arm; a run for each seed."""
    marks: list[Mark] = []
    network, most = best_networks(dataset), 1
    for label, by_seed in curves_by_seed(dataset).items():
        tried = np.arange(1, by_seed.shape[1] + 1)
        marks.append(Curve(network[label], tried, 100 * by_seed, label=label))
        most = max(most, tried.size)
    ticks = sorted({*SHOWN, most} & {*range(1, most + 1)})
    x = Axis("settings tried", "log", ticks=ticks_of(ticks))
    y = score_axis(dataset, f"test {score_name(dataset)} to expect")
    return Figure([Panel(x, y, marks)], arms=True)


def steps(runs: xr.Dataset) -> Figure:
    """Steps to any target accuracy: a line for each seed, and the mean while all arrive."""
    first, goals = int(evaluations(runs)[0]), _goals(runs)
    marks: list[Mark] = [Level(first, "first evaluation: at most")] if first else []
    score = judged(runs)
    found = [steps_to(score, goal / 100).transpose("norm", "seed").values for goal in goals]
    arrivals = np.stack(found, -1)
    for i in range(runs.norm.size):
        marks.append(Curve(i, goals, np.maximum(arrivals[i], 1), every=True))
    x = score_axis(runs, f"target test {score_name(runs)}", ends=(goals[0], goals[-1]))
    y = Axis(
        "training steps", "log", limits=(0.8 * max(first, 1), 1.2 * max(int(runs.step[-1]), 1))
    )
    return Figure([Panel(x, y, marks)])


def gradient_cosine(runs: xr.Dataset) -> Figure:
    """Cosine between successive gradients against step."""
    marks = [Level(0), *curves(runs.gradient_cosine)]
    return Figure([Panel(STEP, Axis(label_of(runs.gradient_cosine)), marks)])


def percentiles(runs: xr.Dataset) -> Figure:
    """Percentiles of what enters the last hidden activation; a panel per network."""
    panels, y = [], Axis(label_of(runs.activation_percentile))
    for i, norm in enumerate(runs.norm.values):
        marks: list[Mark] = []
        for percentile in runs.percentile.values:
            one = runs.activation_percentile.sel(percentile=percentile).isel(norm=[i])
            dash = "solid" if percentile == 50 else "dot"
            marks += curves(one, first=i, dash=dash, label=f"{percentile:g} %")
        panels.append(Panel(STEP, y, marks, str(norm), network=i))
    return Figure(panels, 2 if len(panels) == 4 else min(3, len(panels)), shared=True)


def layered(name: str, *, logarithmic: bool = False) -> Callable[[xr.Dataset], Figure]:
    """The chart of the quantity `name`, a panel per layer."""

    def draw(runs: xr.Dataset) -> Figure:
        scale = _log(runs[name]) if logarithmic else "linear"
        y = Axis(label_of(runs[name]), scale, zero=not logarithmic)
        panels = [
            Panel(STEP, y, curves(runs[name].sel(layer=layer)), str(layer).replace("_", " "))
            for layer in runs.layer.values
        ]
        return Figure(panels, min(4, len(panels)), shared=True)

    return draw


CHARTS: dict[str, Callable[[xr.Dataset], Figure]] = {
    "accuracy": accuracy,
    "values": values,
    "loss": loss,
    "learning_rate": learning_rate,
    "budget": budget,
    "steps": steps,
    "gradient_norm": layered("gradient_norm", logarithmic=True),
    "gradient_variation": layered("gradient_norm_cv"),
    "gradient_noise": layered("gradient_noise"),
    "gradient_cosine": gradient_cosine,
    "update_ratio": layered("update_ratio", logarithmic=True),
    "percentiles": percentiles,
}
OF_ALL_RATES = ("learning_rate", "values", "budget")
assert CHARTS.keys() == CAPTIONS.keys()


def charts_of(dataset: xr.Dataset) -> dict[str, Callable[[xr.Dataset], Figure]]:
    """Returns the charts that a study has something for."""
    several = has_arms(dataset)
    needs = {"values": several, "budget": several or dataset.learning_rate.size > 1}
    return {name: chart for name, chart in CHARTS.items() if needs.get(name, True)}


def curves(quantity: xr.DataArray, *, first: int = 0, **look: Any) -> list[Mark]:
    """Returns each norm's curve of `quantity` `(norm, seed, step)`; `first` counts the first."""
    runs = quantity.transpose("norm", "seed", "step").values.astype(np.float32)
    return [Curve(first + i, quantity.step.values, one, **look) for i, one in enumerate(runs)]


def label_of(quantity: xr.DataArray) -> str:
    """Returns the quantity's own name with its unit."""
    name, units = quantity.attrs.get("long_name", str(quantity.name)), quantity.attrs.get("units")
    return name if units in (None, "", "1") else f"{name} ({units})"


def score_axis(runs: xr.Dataset, label: str, ends: tuple[float, float] = (0.0, 100.0)) -> Axis:
    """Returns an axis of what networks are judged by; `nines` where that is accuracy."""
    scale = "nines" if "test_accuracy" in runs else "linear"
    look: Any = {
        "unit": "\N{NO-BREAK SPACE}%",
        "digits": 1,
        "decimals": True,
        "either": scale == "nines",
    }
    return Axis(f"{label} (%)", scale, limits=ends, **look)


def targets() -> list[Mark]:
    return [Level(round(100 * target, 6), f"{100 * target:.0f} %") for target in TARGETS]


def _arrival(runs: xr.Dataset, i: int) -> list[Mark]:
    """Marks when a network reaches each target, the geometric mean over seeds, if all do."""
    found = {target: steps_to(judged(runs), target).values for target in TARGETS}
    found = {target: when for target, when in found.items() if np.isfinite(when).all()}
    if not found:
        return []
    when = [float(np.exp(np.log(np.maximum(steps, 1)).mean())) for steps in found.values()]
    goals = [100 * target for target in found]
    said = [f"reaches {goal:.0f} % at step {step:.0f}" for goal, step in zip(goals, when)]
    return [Marks(i, np.array(when), np.array(goals), said, "arrival", [""] * len(when))]


def _failures(
    i: int, final: xr.DataArray, failed: list[dict[str, Any]], shift: float
) -> list[Mark]:
    """Crosses of the runs that did not learn, at the accuracy that they count with."""
    if not failed:
        return []
    lost = [run["learning_rate"] for run in failed if run["by"] == "loss"]
    x, y, said, labels, labelled = [], [], [], [], set()
    for run in failed:
        rate, seed, by = run["learning_rate"], run["seed"], run["by"]
        is_first = by == "loss" and rate not in labelled
        labels.append(f"{lost.count(rate)} of {final.seed.size}" if is_first else "")
        labelled |= {rate} if is_first else set()
        x.append(rate)
        y.append(float(final.sel(learning_rate=rate, seed=seed)))
        where = f" at step {run['step']}" if by == "loss" else ""
        said.append(f"rate {rate:g}, seed {seed}: {FAILURES[by]}{where}")
    return [Marks(i, np.array(x), np.array(y), said, "cross", labels, shift)]


def _goals(runs: xr.Dataset) -> np.ndarray:
    """Returns the targets at which steps are counted, in per cent."""
    return _GOALS if "test_accuracy" in runs else np.linspace(0, 100, 41)[1:]


def ticks_of(values: Iterable[float]) -> tuple[tuple[float, str], ...]:
    return tuple((float(value), f"{value:g}") for value in values)


def _log(quantity: xr.DataArray) -> Any:
    """Returns the scale of what is positive: a logarithmic one, if there is anything to draw."""
    return "log" if bool((quantity > 0).any()) else "linear"


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
