"""Readings of runs at their rates: what a network reaches, when, and how two of them compare.

A network here is a dataset of runs `(seed, step)`, each at the rate chosen for it.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import xarray as xr

from experiments.report.inference import (
    DISAGREEING,
    LEVEL,
    Estimate,
    arrivals_at,
    geometric_interval,
    mean_interval,
    sampling_error,
    seeds_to_decide,
    shared_error,
    speed_up,
    verdict,
)
from experiments.report.runs import chance, evaluations, final_accuracy, judged, margin
from experiments.study.tasks import EXAMPLE_SCORE

_EXAMPLES = f"test_{EXAMPLE_SCORE}"
TARGETS = (0.80, 0.90, 0.95)

Columns = dict[str, list[Any]]
"""A curve, as columns of equal length."""


def test_examples(dataset: xr.Dataset) -> int | None:
    """Returns how many test examples all seeds share, None if each has its own."""
    # Another score is no share of right answers, and its sampling error is not known here.
    return dataset.attrs.get("test_examples") if "test_accuracy" in dataset else None


def scores(chosen: xr.Dataset, level: float = LEVEL) -> dict[str, Any]:
    """Returns what a network reaches and when: at `TARGETS`, and as a curve at every target."""
    how = evaluations(chosen), _factor(chosen), level
    every = _every_target(chosen)
    arrived = {target: _arrivals(steps, *how) for target, steps in _steps(chosen, every)}
    return {
        "final_accuracy": final_interval(chosen, level),
        "steps_to": {f"{t:.2f}": _arrivals(steps, *how) for t, steps in _steps(chosen, TARGETS)},
        "steps_curve": _columns(arrived, ("mean", "low", "high", "reached", "at_most")),
    }


def _steps(runs: xr.Dataset, targets: Iterable[float]) -> Iterator[tuple[float, np.ndarray]]:
    """Yields each target, and the step at which each run is first seen there; NaN is never."""
    # A good start is no result where the loss then stops being finite.
    seen = judged(runs).where(runs.diverged_at < 0).transpose("seed", "step").values
    step = runs.step.values.astype(float)
    for target in targets:
        there = seen >= np.float32(target)
        yield target, np.where(there.any(-1), step[there.argmax(-1)], np.nan)


def _every_target(*networks: xr.Dataset) -> list[float]:
    """Returns every whole percentage above chance that some run reaches."""
    lowest = int(np.floor(100 * max(chance(networks[0]), 0))) + 1
    highest = max(float(judged(runs).max()) for runs in networks)
    targets = [percent / 100 for percent in range(lowest, 101)]
    return [target for target in targets if np.float32(target) <= highest]


def _columns(estimates: Mapping[float, Mapping[str, Any]], names: Iterable[str]) -> Columns:
    columns = {name: [estimate[name] for estimate in estimates.values()] for name in names}
    return {"target": [*estimates], **columns}


def _factor(*networks: xr.Dataset) -> float:
    """Returns how often the variance over seeds counts, for networks each at its seeds' rates."""
    agreed = all(np.unique(runs.learning_rate.values).size == 1 for runs in networks)
    return 1.0 if agreed else DISAGREEING


def final_interval(runs: xr.Dataset, level: float = LEVEL) -> Estimate:
    """Returns the mean final score with its interval."""
    accuracy = final_accuracy(runs).values
    error = _example_error(accuracy, runs)
    if error is None:
        error = sampling_error(float(np.mean(accuracy)), 1.0, test_examples(runs))
    return within_score(mean_interval(accuracy, error, _factor(runs), level), runs)


def _example_error(
    by_seed: np.ndarray, one: xr.Dataset, two: xr.Dataset | None = None
) -> float | None:
    """Returns what test examples add to the error of a score, or of a difference, of each seed.

    None where the study has not each example's score.
    """
    networks = [runs for runs in (one, two) if runs is not None]
    # Of another score than accuracy examples have no share, but a squared error say.
    if any(_EXAMPLES not in runs or "test_accuracy" not in runs for runs in networks):
        return None
    *before, after = map(_example_scores, networks)
    each = after - sum(before)
    if test_examples(one):
        return shared_error(each)
    # The spread of seeds with examples of their own holds their error, but where all seeds agree to
    # an example: then it is no measure of anything.
    agree = np.ptp(by_seed) * each.shape[1] < 1.5
    return float(np.sqrt(each.var(axis=1).mean() / each.size)) if agree else 0.0


def _example_scores(runs: xr.Dataset) -> np.ndarray:
    """Returns each test example's score `(seed, example)`; that of guessing in a diverged run."""
    each = runs[_EXAMPLES].where(runs.diverged_at < 0, chance(runs))
    return each.transpose("seed", ...).values.reshape(runs.seed.size, -1).astype(float)


def within_score(interval: Estimate, runs: xr.Dataset) -> Estimate:
    """Returns the interval of a score, cut to what an accuracy can be."""
    return _cut(interval, _least(runs), 1.0)


def _least(runs: xr.Dataset) -> float:
    return 0.0 if "test_accuracy" in runs else -np.inf


def _cut(interval: Estimate, least: float, most: float) -> Estimate:
    return {key: None if v is None else np.clip(v, least, most) for key, v in interval.items()}


def _arrivals(
    steps: np.ndarray, evaluated: np.ndarray, factor: float, level: float
) -> dict[str, Any]:
    arrived, early = np.isfinite(steps), bool((steps <= evaluated[0]).any())
    mean: Estimate = dict.fromkeys(("mean", "low", "high"))
    if arrived.all():  # the mean of those that arrive would be the better the more runs fail
        known = arrivals_at(np.maximum(steps, 1), evaluated)
        mean = _cut(geometric_interval(known, None, factor, level), 1, np.inf)
    if early:
        mean |= {"low": None, "high": None}
    return {**mean, "reached": arrived.sum(), "of": steps.size, "at_most": early, "by_seed": steps}


def compare(one: xr.Dataset, two: xr.Dataset, level: float = LEVEL) -> dict[str, Any]:
    """Returns how far apart two networks end and how much sooner `two` is, each at its rates."""
    how = evaluations(one), _factor(one, two), level

    def ratios(targets: Sequence[float]) -> dict[float, Estimate]:
        both = zip(_steps(one, targets), _steps(two, targets))
        return {target: speed_up(before, after, *how) for (target, before), (_, after) in both}

    every = ratios(_every_target(one, two))
    return {
        "accuracy_difference": accuracy_difference(one, two, level),
        "speed_up": {f"{target:.2f}": ratio for target, ratio in ratios(TARGETS).items()},
        "speed_up_curve": _columns(every, ("mean", "low", "high", "kind")),
    }


def accuracy_difference(one: xr.Dataset, two: xr.Dataset, level: float = LEVEL) -> dict[str, Any]:
    """The accuracy of `two` less that of `one`, seed by seed, and what it decides."""
    before, after = (final_accuracy(runs).values for runs in (one, two))
    difference = after - before
    error = _example_error(difference, one, two)
    if error is None:
        error = sampling_error(float(before.mean()), float(after.mean()), test_examples(one))
    factor = _factor(one, two)
    interval = mean_interval(difference, error, factor, level)
    if interval["low"] is not None:
        interval = _within_scores(interval, one, two, level)
    within = margin(one)
    decided = verdict(interval, within)
    needed = None
    if decided == "undecided":
        needed = seeds_to_decide(difference, within, error, factor, level)
    return {
        **interval,
        "level": level,
        "verdict": decided,
        "margin": within,
        "seeds_to_decide": needed,
    }


def _within_scores(
    difference: Estimate, one: xr.Dataset, two: xr.Dataset, level: float
) -> Estimate:
    """Returns the interval of a difference, cut to what the scores of both networks leave it.

    No score is above 1 or, of an accuracy, below 0: a network that has `low` at least is surpassed
    by 1 - `low` at most.
    """
    before, after = (final_interval(runs, level) for runs in (one, two))
    low = max(_least(two) - before["high"], after["low"] - 1)
    return _cut(difference, low, min(1 - before["low"], after["high"] - _least(one)))
