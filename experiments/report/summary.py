"""A study's measurements as plain numbers with intervals and verdicts: summary.json.

The first norm of the dataset is the baseline. Every comparison is made twice, because the two
answers often differ: at one and the same learning rate, and each network at its own best rate.
Nothing here draws or words anything, so a report may be restyled without touching a number.
"""

import json
from typing import Any

import numpy as np
import xarray as xr

from experiments.report.arms import arms, has_arms, members, opponents, setting_of
from experiments.report.budget import budget_curves
from experiments.report.inference import mean_interval
from experiments.report.readings import (
    TARGETS,
    accuracy_difference,
    compare,
    final_interval,
    scores,
    test_examples,
)
from experiments.report.runs import (
    FAILURES,
    at_rates,
    best_learning_rates,
    failed_runs,
    margin,
    rates_chosen_by_others,
    same_for_all,
    score_name,
)
from experiments.report.seconds import seconds_per_step

GRADIENT_FIGURES = (
    "gradient_norm",
    "gradient_norm_cv",
    "gradient_noise",
    "gradient_cosine",
    "update_ratio",
)

DEFINITIONS = {
    "interval": "95 % interval: Student's t over seeds, and the sampling error of a test set that "
    "all seeds share, as root of the sum of squares. That error is that of each example's "
    "score: the variance over examples of their means over seeds, less what seeds explain of it, "
    "over the number of examples. Without these scores it is at most the root of both networks' "
    "error rates over that number. Seeds with test sets of their own show it in their spread; "
    "where they agree to an example, the error of the examples takes the spread's place. Where "
    "seeds are read at rates that others choose and these differ, the variance over seeds counts "
    "three times, since the readings are correlated (docs/results/verdicts.md). Cut to [0, 1] for "
    "an accuracy, and for a difference to what the intervals of both accuracies and these ends "
    "leave it; for steps, 1 at least, and their ratios taken in logarithms. A comparison is paired "
    "by seed. With one seed there is none. Each interval stands alone: no correction is made for "
    "how many are shown.",
    "verdict": "Of an accuracy difference: equal if its interval lies within the margin that the "
    "study names, better or worse if it lies above or below zero, else undecided; then the number "
    "of seeds that would decide if mean and spread stayed as they are, unless the test set is the "
    "limit.",
    "best_learning_rate": "The one of the highest mean final accuracy over all seeds, on "
    "validation data if the study has them, else on the test set.",
    "final_accuracy": "Test accuracy at the last step. Each seed is read at the rate that the "
    "other seeds choose, so that no run is picked for its own luck. A run whose loss stopped being "
    "finite counts as chance.",
    "setting": "A learning rate, and a value of each field that the study has several values of. "
    "An arm, all networks of one norm, is compared at its best setting, chosen as a rate is.",
    "same_rate": "Every network at the baseline's best learning rate.",
    "steps_to": "The first evaluation at which test accuracy reaches the target, the geometric "
    "mean over seeds. A run that never does, or whose loss stops being finite, is `never` (null); "
    "a mean needs every seed to arrive. A run arrives after the evaluation before and by this one, "
    "anywhere between in logarithms: the interval is of arrivals. Its middle is half way, and it "
    "holds, as an error that all seeds share, the logarithm of the two evaluations' ratio over the "
    "root of 12; seeds that seem to differ by less count as differing by that. `at most` if a run "
    "had arrived at the first.",
    "speed_up": "The baseline's steps over the network's, the geometric mean over seeds; its "
    "interval is that of the arrivals, as of steps. Where a "
    "run never arrives its steps are taken as the last step, and where it had arrived at the first "
    "evaluation as that one, so the ratio is a bound: `at least` or `at most`, or `unknown` where "
    "the bounds point both ways.",
    "steps_curve": "The same at every whole percentage above chance that some run reaches; "
    "`speed_up_curve` likewise.",
    "budget": "What to expect of k settings of an arm tried with one seed each, drawn at random "
    "without replacement: the test accuracy of the best of them by validation accuracy (by test "
    "accuracy, where there are no validation data: then it flatters), as the exact mean over all "
    "subsets of k; mean and interval are over seeds (after Dodge et al. 2019, Show your work).",
    "confirmation": "Runs of the setting chosen for each norm, on seeds that chose nothing: no "
    "interval needs a correction for the choice. With two planned looks each is of 97.5 %, so "
    "that at most 5 % of studies are wrong at either (Bonferroni).",
    "did_not_learn": "Runs that failed by one rule at every rate: "
    + "; ".join(f"{name}: {rule}" for name, rule in FAILURES.items())
    + ".",
    "largest_stable_learning_rate": "Going up from the best rate, the last rate before the first "
    "at which a run did not learn; null if one did not at the best rate itself.",
    "gradients": "Means over training of the measured gradient quantities, each weighted by the "
    "steps since the evaluation before, then over seeds.",
    "seconds_per_step": "Wall time of training per step and run, all runs of the norm at once on "
    "all devices, evaluations and compilation left out: median and quartiles over the longest "
    "windows of steps. Null if not measured.",
}


def summarize(dataset: xr.Dataset) -> dict[str, Any]:
    """Returns the numbers of one study as JSON types; what is not known (NaN) is `None`.

    Every quantity is defined in the result's `definitions`. Floats keep six significant digits, as
    many as the float32 measurements carry.

    Example:
        >>> summarize(xr.open_dataset("runs/digits/metrics.nc"))  # doctest: +SKIP
        {'name': 'digits', ..., 'norms': {'none': {'best_learning_rate': 0.3, ...}}}
    """
    dataset = dataset.sortby("learning_rate")
    score = score_name(dataset)
    config = json.loads(dataset.attrs.get("config", "{}"))
    environment = json.loads(dataset.attrs.get("environment", "{}"))
    return plain(
        {
            **{key: dataset.attrs.get(key) for key in ("name", "claim", "data")},
            "seeds": dataset.seed.values,
            "learning_rates": dataset.learning_rate.values,
            "steps": dataset.step.values[-1],
            "evaluate_every": np.diff(dataset.step.values).max() if dataset.step.size > 1 else None,
            "test_examples": test_examples(dataset),
            "margin": margin(dataset),
            "score": score,
            "validation": any(str(name).startswith("validation") for name in dataset),
            "targets": TARGETS,
            "norms": {norm: _network(dataset, norm) for norm in dataset.norm.values.tolist()},
            "arms": _arms(dataset),
            "budget": budget_curves(dataset),
            "comparisons": [_comparison(dataset, *pair) for pair in opponents(dataset)],
            "definitions": {
                word.replace("accuracy", score): text.replace("accuracy", score)
                for word, text in DEFINITIONS.items()
            },
            "versions": environment.get("versions"),
            "device": environment.get("device"),
            "config": config,
            "environment": environment,
        }
    )


def _network(dataset: xr.Dataset, norm: str) -> dict[str, Any]:
    runs = dataset.sel(norm=norm)
    rates = rates_chosen_by_others(dataset)
    best = float(best_learning_rates(dataset).sel(norm=norm))
    failed = failed_runs(runs)
    stable = _largest_stable(runs.learning_rate.values, best, failed)
    same = same_for_all(rates).sel(norm=norm)
    return {
        "best_learning_rate": best,
        "rates_chosen_by_others": rates.sel(norm=norm).values,
        **_at_rate(runs, rates.sel(norm=norm)),
        "largest_stable_learning_rate": stable,
        "largest_stable_is_largest_tried": stable == runs.learning_rate.values[-1],
        "did_not_learn": {"count": len(failed), "of": runs.diverged_at.size, "runs": failed},
        "same_rate": _at_rate(runs, same),
        "seconds_per_step": seconds_per_step(runs),
        "by_learning_rate": [
            {
                "learning_rate": rate,
                "final_accuracy": final_interval(runs.sel(learning_rate=rate)),
            }
            for rate in runs.learning_rate.values
        ],
    }


def _at_rate(runs: xr.Dataset, rates: xr.DataArray) -> dict[str, Any]:
    chosen = at_rates(runs, rates)
    finite = chosen.diverged_at < 0
    gradients = {name: _over_training(chosen[name].where(finite)) for name in GRADIENT_FIGURES}
    return {**scores(chosen), "gradients": gradients}


def _over_training(quantity: xr.DataArray) -> dict[str, Any]:
    steps = quantity.step
    mean = quantity.weighted(steps - steps.shift(step=1, fill_value=0)).mean("step")
    if "layer" not in mean.dims:
        return mean_interval(mean)
    return {str(layer): mean_interval(mean.sel(layer=layer)) for layer in mean.layer.values}


def _largest_stable(rates: np.ndarray, best: float, failed: list[dict[str, Any]]) -> float:
    unstable = [run["learning_rate"] for run in failed if run["learning_rate"] >= best]
    stable = rates[(rates >= best) & (rates < min(unstable, default=np.inf))]
    return float(stable.max()) if stable.size else np.nan


def _comparison(dataset: xr.Dataset, baseline: str, norm: str) -> dict[str, Any]:
    rates, best = rates_chosen_by_others(dataset), best_learning_rates(dataset)
    one, two = (dataset.sel(norm=name) for name in (baseline, norm))
    own = rates.sel(norm=baseline)
    return {
        "norm": norm,
        "baseline": baseline,
        "best_rate": {
            "learning_rate": {name: float(best.sel(norm=name)) for name in (baseline, norm)},
            **compare(at_rates(one, own), at_rates(two, rates.sel(norm=norm))),
        },
        "same_rate": {
            "learning_rate": dict.fromkeys((baseline, norm), float(best.sel(norm=baseline))),
            **compare(at_rates(one, own), at_rates(two, own)),
        },
        "by_learning_rate": [
            {
                "learning_rate": rate,
                "accuracy_difference": accuracy_difference(
                    one.sel(learning_rate=rate), two.sel(learning_rate=rate)
                ),
            }
            for rate in dataset.learning_rate.values
        ],
    }


def _arms(dataset: xr.Dataset) -> list[dict[str, Any]]:
    """Compares norms each at the best of its settings, where a field has several values."""
    if not has_arms(dataset):
        return []
    whole = arms(dataset)
    rates, best = rates_chosen_by_others(whole), best_learning_rates(whole)
    baseline, *others = whole.norm.values.tolist()
    one = at_rates(whole.sel(norm=baseline), rates.sel(norm=baseline))
    return [
        {
            "norm": norm,
            "baseline": baseline,
            "settings": {
                label: str(setting_of(dataset, label, float(best.sel(norm=label))))
                for label in (baseline, norm)
            },
            "tried": whole.learning_rate.size,
            "did_not_learn": {label: _failed(dataset, label) for label in (baseline, norm)},
            **compare(one, at_rates(whole.sel(norm=norm), rates.sel(norm=norm))),
        }
        for norm in others
    ]


def _failed(dataset: xr.Dataset, label: str) -> dict[str, int]:
    """Returns how many of an arm's runs did not learn, at all settings together."""
    networks = [dataset.isel(norm=i) for i in members(dataset)[label]]
    counts = [len(failed_runs(runs)) for runs in networks]
    return {"count": sum(counts), "of": sum(runs.diverged_at.size for runs in networks)}


def plain(value: Any) -> Any:
    """Returns `value` in JSON's own types: no arrays, no numpy scalars, no NaN."""
    if isinstance(value, dict):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple | np.ndarray):
        return [plain(item) for item in value]
    if isinstance(value, np.generic):
        return plain(value.item())
    if isinstance(value, float):
        return float(f"{value:.6g}") if np.isfinite(value) else None
    return value
