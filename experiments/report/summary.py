"""What a study measured, boiled down to plain numbers with intervals: the content of summary.json.

The first norm of the dataset is the baseline. Every comparison is made twice, because the two
answers often differ: at one and the same learning rate, and each network at its own best rate.
Nothing here draws or words anything, so a report may be restyled without touching a number.
"""

import json
from typing import Any

import numpy as np
import xarray as xr
from scipy import stats

TARGETS = (0.80, 0.90, 0.95)
STABLE_FRACTION = 0.8
GRADIENT_FIGURES = (
    "gradient_norm",
    "gradient_norm_cv",
    "gradient_noise",
    "gradient_cosine",
    "update_ratio",
)

DEFINITIONS = {
    "interval": "95 % Student t interval of the mean over seeds, cut to [0, 1] for an accuracy; a "
    "comparison is paired by seed. With one seed there is none. Each interval stands alone: no "
    "correction is made for how many are shown.",
    "final_accuracy": "Test accuracy at the last step, at the best learning rate. "
    "Diverged runs are kept out of every mean and counted beside it.",
    "best_learning_rate": "Among the rates where no seed's loss stopped being finite (if there is "
    "none, among all), those whose mean final accuracy is within one standard error of the "
    "highest count as level; of them, the one with the highest accuracy averaged over training. "
    "The test set chooses it.",
    "same_rate": "Every network at the baseline's best learning rate.",
    "steps_to": "The first evaluation at which test accuracy reaches the target. A run that "
    "never does, or whose loss diverges, is `never` (null); a mean needs every seed to arrive. "
    "Read to within one evaluation (`evaluate_every` steps), which no interval includes.",
    "speed_up": "The baseline's steps over the network's, the geometric mean over seeds. Where a "
    "run never arrives its steps are taken as the last step, so the ratio is a bound: `at least` "
    "if only the baseline failed to arrive, `at most` if only the network did, `unknown` if both.",
    "diverged": "Runs whose loss stopped being finite (by loss, with the step), and runs at a rate "
    f"above the best that end below {STABLE_FRACTION:g} of this network's best mean accuracy (by "
    "accuracy): normalised weights are scale-free and can diverge with a finite loss.",
    "largest_stable_learning_rate": "Going up from the best rate, the last rate before the first "
    "at which a run diverged; null if one diverged at the best rate itself.",
    "gradients": "Means over training of the measured gradient quantities, then over seeds.",
}

SCORES = ("test_accuracy", "test_r2", "test_score")

Estimate = dict[str, Any]  # mean, low, high


def summarize(dataset: xr.Dataset) -> dict[str, Any]:
    """The numbers of one study as JSON types; what is not known (NaN) is `None`.

    Every quantity is defined in the result's `definitions`. Floats keep six significant digits, as
    many as the float32 measurements carry.

    Example:
        >>> summarize(xr.open_dataset("runs/digits/metrics.nc"))  # doctest: +SKIP
        {'name': 'digits', ..., 'norms': {'none': {'best_learning_rate': 0.3, ...}}}
    """
    dataset = dataset.sortby("learning_rate")
    baseline, *others = dataset.norm.values.tolist()
    config = json.loads(dataset.attrs.get("config", "{}"))
    environment = json.loads(dataset.attrs.get("environment", "{}"))
    return _plain(
        {
            **{key: dataset.attrs.get(key) for key in ("name", "claim", "data")},
            "seeds": dataset.seed.values,
            "learning_rates": dataset.learning_rate.values,
            "steps": dataset.step.values[-1],
            "evaluate_every": dataset.step.values[1] if dataset.step.size > 1 else None,
            "score": score_name(dataset),
            "targets": TARGETS,
            "norms": {norm: _network(dataset, norm) for norm in dataset.norm.values.tolist()},
            "comparisons": [_comparison(dataset, baseline, norm) for norm in others],
            "definitions": {
                name: text.replace("accuracy", score_name(dataset))
                for name, text in DEFINITIONS.items()
            },
            "versions": environment.get("versions"),
            "device": environment.get("device"),
            "config": config,
            "environment": environment,
        }
    )


def judged(runs: xr.Dataset) -> xr.DataArray:
    """What networks are judged by: test accuracy, or what takes its place."""
    return next(runs[name] for name in SCORES if name in runs)


def score_name(dataset: xr.Dataset) -> str:
    """What the report calls that: "accuracy", or "explained variance"."""
    return judged(dataset).attrs.get("long_name", "test accuracy").removeprefix("test ")


def final_accuracy(dataset: xr.Dataset) -> xr.DataArray:
    """What is judged of each run, at the last step; NaN if its loss stopped being finite."""
    return judged(dataset).isel(step=-1, drop=True).where(dataset.diverged_at < 0)


def best_learning_rates(dataset: xr.Dataset) -> xr.DataArray:
    """Each norm's best learning rate by `DEFINITIONS`; NaN if all its runs diverged.

    Several rates often end equally well. Were chance to decide between them, so would it decide
    how fast the network is said to be; the fastest of them is taken instead.
    """
    final = final_accuracy(dataset)
    # A mean over survivors flatters a rate at which the weaker seeds blew up.
    intact = final.mean("seed").where(final.notnull().all("seed"))
    score = intact.where(intact.notnull().any("learning_rate"), final.mean("seed"))
    error = final.std("seed", ddof=1) / np.sqrt(final.notnull().sum("seed"))
    margin = error.where(score == score.max("learning_rate")).min("learning_rate").fillna(0)
    level = score >= score.max("learning_rate") - margin
    pace = judged(dataset).mean(("seed", "step")).where(level)
    return pace.astype(float).idxmax("learning_rate")


def same_learning_rates(dataset: xr.Dataset) -> xr.DataArray:
    """The baseline's best learning rate, for every norm."""
    best = best_learning_rates(dataset)
    return xr.full_like(best, best.values[0])


def at_rates(dataset: xr.Dataset, rates: xr.DataArray) -> xr.Dataset:
    """Each norm's runs at its own rate; at the smallest rate where that is NaN."""
    return dataset.sel(learning_rate=rates.fillna(dataset.learning_rate.values[0]))


def choices(dataset: xr.Dataset) -> list[tuple[str, xr.Dataset]]:
    """The two comparisons, each with its intact runs `(norm, seed, ...)`; one if rates agree."""
    best, same = best_learning_rates(dataset), same_learning_rates(dataset)
    intact = dataset.where(dataset.diverged_at < 0)
    rate = f"{same.values[0]:g}"
    if best.equals(same):
        return [(f"at rate {rate}", at_rates(intact, same))]
    return [
        (f"at the same rate, {rate}", at_rates(intact, same)),
        ("at its best rate", at_rates(intact, best)),
    ]


def steps_to(accuracy: xr.DataArray, target: float) -> xr.DataArray:
    """First step at which `accuracy` is at least `target`; NaN is never."""
    return accuracy.step.where(accuracy >= target).min("step")


def diverged_runs(runs: xr.Dataset, best: float) -> list[dict[str, Any]]:
    """One network's diverged runs: learning rate, seed, step (None by accuracy), and by which."""
    final = final_accuracy(runs)
    peak = 0.0 if np.isnan(best) else float(final.sel(learning_rate=best).mean())
    lost = []
    for rate in runs.learning_rate.values:
        for seed in runs.seed.values:
            run = {"learning_rate": rate, "seed": seed}
            step = int(runs.diverged_at.sel(run))
            if step >= 0:
                lost.append({**run, "step": step, "by": "loss"})
            elif rate > best and final.sel(run) < STABLE_FRACTION * peak:
                lost.append({**run, "step": None, "by": "accuracy"})
    return lost


def mean_interval(values: Any) -> Estimate:
    """Mean and 95 % Student t interval of the finite `values`; no interval for fewer than two."""
    values = np.asarray(values, dtype=np.float64)
    values = values[np.isfinite(values)]
    if values.size == 0:
        return {"mean": None, "low": None, "high": None}
    mean = values.mean()
    if values.size == 1:
        return {"mean": mean, "low": None, "high": None}
    half = stats.t.ppf(0.975, values.size - 1) * stats.sem(values)
    return {"mean": mean, "low": mean - half, "high": mean + half}


def speed_up(baseline: Any, other: Any, last_step: int) -> Estimate:
    """Geometric mean of `baseline / other`: steps paired by seed, NaN for never (DEFINITIONS)."""
    baseline, other = np.asarray(baseline, float), np.asarray(other, float)
    late, other_late = bool(np.isnan(baseline).any()), bool(np.isnan(other).any())
    if late and other_late:
        return {"mean": None, "low": None, "high": None, "kind": "unknown"}
    steps = [np.maximum(np.where(np.isnan(s), last_step, s), 1) for s in (baseline, other)]
    log_ratio = mean_interval(np.log(steps[0]) - np.log(steps[1]))
    ratio = {key: None if value is None else np.exp(value) for key, value in log_ratio.items()}
    if late or other_late:
        return {**ratio, "low": None, "high": None, "kind": "at least" if late else "at most"}
    return {**ratio, "kind": "measured"}


def _network(dataset: xr.Dataset, norm: str) -> dict[str, Any]:
    runs = dataset.sel(norm=norm)
    best = float(best_learning_rates(dataset).sel(norm=norm))
    same = float(same_learning_rates(dataset).sel(norm=norm))
    lost = diverged_runs(runs, best)
    stable = _largest_stable(runs.learning_rate.values, best, lost)
    return {
        "best_learning_rate": best,
        **_at_rate(runs, best),
        "largest_stable_learning_rate": stable,
        "largest_stable_is_largest_tried": stable == runs.learning_rate.values[-1],
        "diverged": {"count": len(lost), "of": runs.diverged_at.size, "runs": lost},
        "same_rate": {"learning_rate": same, **_at_rate(runs, same)},
        "by_learning_rate": [
            {"learning_rate": rate, "final_accuracy": _score_interval(accuracy, runs)}
            for rate, accuracy in zip(runs.learning_rate.values, final_accuracy(runs).values)
        ],
    }


def _at_rate(runs: xr.Dataset, rate: float) -> dict[str, Any]:
    chosen = _whole_runs(runs, rate)
    return {
        "final_accuracy": _score_interval(final_accuracy(chosen), runs),
        "steps_to": {
            f"{target:.2f}": _arrivals(steps_to(judged(chosen), target).values)
            for target in TARGETS
        },
        "gradients": {name: _over_training(chosen[name]) for name in GRADIENT_FIGURES},
    }


def _whole_runs(runs: xr.Dataset, rate: float) -> xr.Dataset:
    """The runs at `rate`, with all of a diverged run blanked: its good start is no result."""
    if np.isnan(rate):
        return runs.isel(learning_rate=0).where(False)
    chosen = runs.sel(learning_rate=rate)
    return chosen.where(chosen.diverged_at < 0).assign(diverged_at=chosen.diverged_at)


def _score_interval(scores: Any, runs: xr.Dataset) -> Estimate:
    lowest = 0 if "test_accuracy" in runs else -np.inf
    interval = mean_interval(scores)
    return {key: None if v is None else np.clip(v, lowest, 1) for key, v in interval.items()}


def _arrivals(steps: np.ndarray) -> dict[str, Any]:
    arrived = np.isfinite(steps)
    # The mean of those that arrive would be the better the more runs fail.
    mean = mean_interval(steps if arrived.all() else [])
    return {**mean, "reached": arrived.sum(), "of": steps.size, "by_seed": steps}


def _over_training(quantity: xr.DataArray) -> dict[str, Any]:
    mean = quantity.mean("step")
    if "layer" not in mean.dims:
        return mean_interval(mean)
    return {str(layer): mean_interval(mean.sel(layer=layer)) for layer in mean.layer.values}


def _largest_stable(rates: np.ndarray, best: float, lost: list[dict[str, Any]]) -> float:
    unstable = [run["learning_rate"] for run in lost if run["learning_rate"] >= best]
    stable = rates[(rates >= best) & (rates < min(unstable, default=np.inf))]
    return float(stable.max()) if stable.size else np.nan


def _comparison(dataset: xr.Dataset, baseline: str, norm: str) -> dict[str, Any]:
    best, same = best_learning_rates(dataset), same_learning_rates(dataset)
    final = final_accuracy(dataset)
    gain = final.sel(norm=norm) - final.sel(norm=baseline)
    return {
        "norm": norm,
        "baseline": baseline,
        "best_rate": _pair(dataset, baseline, norm, best),
        "same_rate": _pair(dataset, baseline, norm, same),
        "by_learning_rate": [
            {"learning_rate": rate, "accuracy_difference": _paired(gain.sel(learning_rate=rate))}
            for rate in dataset.learning_rate.values
        ],
    }


def _pair(dataset: xr.Dataset, baseline: str, norm: str, rates: xr.DataArray) -> dict[str, Any]:
    used = {name: float(rates.sel(norm=name)) for name in (baseline, norm)}
    one, two = (_whole_runs(dataset.sel(norm=name), rate) for name, rate in used.items())
    last_step = int(dataset.step.values[-1])
    return {
        "learning_rate": used,
        "accuracy_difference": _paired(final_accuracy(two) - final_accuracy(one)),
        "speed_up": {
            f"{target:.2f}": speed_up(
                steps_to(judged(one), target), steps_to(judged(two), target), last_step
            )
            for target in TARGETS
        },
    }


def _paired(difference: xr.DataArray) -> Estimate:
    return {**mean_interval(difference), "pairs": int(difference.notnull().sum())}


def _plain(value: Any) -> Any:
    """`value` in JSON's own types: no arrays, no numpy scalars, no NaN."""
    if isinstance(value, dict):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple | np.ndarray):
        return [_plain(item) for item in value]
    if isinstance(value, np.generic):
        return _plain(value.item())
    if isinstance(value, float):
        return float(f"{value:.6g}") if np.isfinite(value) else None
    return value
