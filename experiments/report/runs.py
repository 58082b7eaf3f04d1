"""Runs of a study: which learned, which learning rate is chosen, and when a target is reached."""

import json
from typing import Any, Literal

import numpy as np
import xarray as xr

from experiments.study.config import DEFAULTS

ABOVE_CHANCE = 0.1
KEPT = 0.8
GROUPS = 10

Failure = Literal["loss", "fell", "stuck"]
FAILURES: dict[Failure, str] = {
    "loss": "its loss stopped being finite",
    "fell": f"it ended below {KEPT:.0%} of the highest accuracy it had",
    "stuck": f"it was never more than {100 * ABOVE_CHANCE:.0f} points above chance",
}


def score_variable(runs: xr.Dataset) -> str:
    """Returns the name of the variable that networks are judged by."""
    return runs.attrs.get("score", "test_accuracy")


def judged(runs: xr.Dataset) -> xr.DataArray:
    """Returns what networks are judged by: test accuracy, or what takes its place."""
    return runs[score_variable(runs)]


def score_name(dataset: xr.Dataset) -> str:
    """Returns what the report calls that: "accuracy", or "explained variance"."""
    return judged(dataset).attrs.get("long_name", "test accuracy").removeprefix("test ")


def chance(dataset: xr.Dataset) -> float:
    """Returns the score of guessing."""
    return dataset.attrs.get("chance", 0.1)


def margin(dataset: xr.Dataset) -> float:
    """Returns within how much two scores are equal, as the study names it."""
    return json.loads(dataset.attrs.get("config", "{}")).get("margin", DEFAULTS["margin"])


def final_accuracy(dataset: xr.Dataset) -> xr.DataArray:
    """Returns each run's score at the last step; chance if its loss was not finite."""
    return _final(judged(dataset), dataset)


def _final(accuracy: xr.DataArray, dataset: xr.Dataset) -> xr.DataArray:
    last = accuracy.isel(step=-1, drop=True)
    return last.where(dataset.diverged_at < 0, chance(dataset))


def failed_runs(runs: xr.Dataset) -> list[dict[str, Any]]:
    """Returns the runs that did not learn, by one rule at every rate (`FAILURES`).

    Each with its learning rate, seed, the step at which the loss was not finite, and by which rule.
    """
    peak, final = judged(runs).max("step"), final_accuracy(runs)
    failed = []
    for rate in runs.learning_rate.values:
        for seed in runs.seed.values:
            run = {"learning_rate": rate, "seed": seed}
            step, high = int(runs.diverged_at.sel(run)), float(peak.sel(run))
            if step >= 0:
                failed.append({**run, "step": step, "by": "loss"})
            elif high <= chance(runs) + ABOVE_CHANCE:
                failed.append({**run, "step": None, "by": "stuck"})
            elif float(final.sel(run)) < KEPT * high:
                failed.append({**run, "step": None, "by": "fell"})
    return failed


def best_learning_rates(dataset: xr.Dataset) -> xr.DataArray:
    """Returns each norm's learning rate of the highest mean final accuracy over all seeds.

    On validation data where the study has them. Of rates that end equal, the smallest.
    """
    return choosing_score(dataset).mean("seed").idxmax("learning_rate")


def rates_chosen_by_others(dataset: xr.Dataset) -> xr.DataArray:
    """Returns for each norm and seed the best learning rate of the other seeds.

    What a seed reaches there is not flattered by the choice, which never saw it; and over seeds it
    varies with the choice too. More than ten seeds are left out in ten groups. One seed chooses for
    itself.
    """
    final = choosing_score(dataset).transpose("norm", "seed", "learning_rate")
    everyone = np.arange(final.seed.size)
    chosen = np.zeros(final.shape[:2], int)
    for group in np.array_split(everyone, min(everyone.size, GROUPS)):
        others = np.setdiff1d(everyone, group) if everyone.size > 1 else everyone
        chosen[:, group] = final.values[:, others].mean(1).argmax(-1)[:, None]
    rates = dataset.learning_rate.values[chosen]
    return final.isel(learning_rate=0, drop=True).copy(data=rates)


def choosing_score(dataset: xr.Dataset) -> xr.DataArray:
    """Returns each run's final score on validation data; on the test set, where there are none."""
    selects = score_variable(dataset).replace("test", "validation", 1)
    return _final(dataset.get(selects, judged(dataset)), dataset).astype(float)


def same_for_all(rates: xr.DataArray) -> xr.DataArray:
    """Returns the baseline's rates for every norm."""
    return xr.zeros_like(rates) + rates.isel(norm=0, drop=True)


def at_rates(dataset: xr.Dataset, rates: xr.DataArray) -> xr.Dataset:
    """Returns each norm's, or each run's, part at its own rate."""
    return dataset.sel(learning_rate=rates)


def choices(dataset: xr.Dataset) -> list[tuple[str, xr.Dataset]]:
    """Returns the two comparisons, each with its intact runs `(norm, seed, ...)`; one if equal."""
    best = best_learning_rates(dataset)
    same = same_for_all(best)
    intact = dataset.where(dataset.diverged_at < 0)
    rate = f"{same.values[0]:g}"
    if best.equals(same):
        return [(f"at rate {rate}", at_rates(intact, same))]
    return [
        (f"at the same rate, {rate}", at_rates(intact, same)),
        ("at its best rate", at_rates(intact, best)),
    ]


def steps_to(accuracy: xr.DataArray, target: float) -> xr.DataArray:
    """Returns the first step at which `accuracy` is at least `target`; NaN is never."""
    return accuracy.step.where(accuracy >= target).min("step")


def evaluations(dataset: xr.Dataset) -> np.ndarray:
    """Returns the steps at which a trained network was evaluated; 0 if it never was."""
    steps = dataset.step.values
    return steps[steps > 0] if (steps > 0).any() else np.zeros(1, int)
