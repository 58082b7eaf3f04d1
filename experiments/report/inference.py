"""Intervals and verdicts: what a few seeds and one test set allow to be said.

A verdict compares a 95 % interval with zero and with a margin: better, worse, equal, undecided.
`python -m experiments bench verdicts` counts how often each is wrong on studies of known effects.
"""

from typing import Any, Literal, NamedTuple

import numpy as np
from scipy import stats

Estimate = dict[str, Any]  # mean, low, high; None where unknown
Verdict = Literal["better", "worse", "equal", "undecided", "one seed", "unknown"]

LEVEL = 0.95
MOST_SEEDS = 1000  # beyond them a verdict is said to be out of reach
# Where seeds are read at rates that the others choose, and do not agree on one, their readings are
# correlated: at rates that end alike, the variance of their mean is 2 to 2.8 times what they show.
DISAGREEING = 3.0


def level_of_look(looks: int) -> float:
    r"""Returns the level of each interval where there are to be as many looks at growing data.

    Stopping at the first look that decides is wrong if the interval of any look is, so that each
    may miss in $5\%/\text{looks}$ of all cases (Bonferroni), however many seeds each look has and
    whatever their distribution. For two looks Pocock's boundary, which asks normal differences,
    would be 2.7 to 2.9 % in place of 2.5 (Jennison & Turnbull 2000, Group sequential methods,
    chapter 2); `bench verdicts` counts.
    """
    return 1 - (1 - LEVEL) / looks


def mean_interval(
    values: Any,
    sampling: float = 0.0,
    factor: float = 1.0,
    level: float = LEVEL,
    least: float = 0.0,
) -> Estimate:
    """Returns the mean of the finite `values` with its Student t interval.

    Args:
        values: One for each seed; fewer than two have no interval.
        sampling: Standard error of the mean from what all seeds share, one test set for example.
            Half the interval is the root of the sum of both squares.
        factor: Multiplies the variance over seeds (`DISAGREEING`).
        level: Probability with which such intervals hold the true mean.
        least: Standard deviation below which that of the values is no measure of the seeds.
    """
    values = np.asarray(values, dtype=np.float64)
    values = values[np.isfinite(values)]
    if values.size == 0:
        return {"mean": None, "low": None, "high": None}
    mean = values.mean()
    if values.size == 1:
        return {"mean": mean, "low": None, "high": None}
    deviation = max(values.std(ddof=1), least)
    half = half_width(deviation, values.size, sampling, factor, level)
    return {"mean": mean, "low": mean - half, "high": mean + half}


class Arrivals(NamedTuple):
    """When runs arrive, read off the evaluations of a study, one for each seed.

    Attributes:
        seen: The evaluation at which each is first seen to have arrived.
        before: The one before it, at which it had not.
    """

    seen: np.ndarray
    before: np.ndarray

    @property
    def middle(self) -> np.ndarray:
        """Logarithm of the steps half way, in logarithms, from one evaluation to the other."""
        return np.log(self.seen * self.before) / 2

    @property
    def error(self) -> float:
        """Standard error of `middle`, the mean over seeds: arrivals may be anywhere between."""
        return float(np.log(self.seen / self.before).mean() / np.sqrt(12))


def arrivals_at(steps: Any, evaluations: np.ndarray) -> Arrivals:
    """Returns what is known of arrivals that are seen at `steps`, each one of `evaluations`."""
    seen = np.asarray(steps, dtype=np.float64)
    before = evaluations[np.maximum(np.searchsorted(evaluations, seen) - 1, 0)]
    return Arrivals(seen, np.clip(before, 1.0, seen))


def geometric_interval(
    arrivals: Arrivals, other: Arrivals | None = None, factor: float = 1.0, level: float = LEVEL
) -> Estimate:
    r"""Returns the geometric mean of steps, or of their ratio to those of `other`, seed by seed.

    The mean is that of the evaluations at which arrivals are seen. The interval is that of the
    arrivals, uniform in logarithms between an evaluation and the one before: its middle is that of
    the cells, and each cell's standard deviation, $1/\sqrt{12}$ of its width, is an error that all
    seeds may share, since they may all lie at the same place in it. A spread over seeds that is
    smaller is hidden by the grid, and counts as much.
    """
    middle, error, seen = arrivals.middle, arrivals.error, np.log(arrivals.seen)
    if other is not None:
        middle, error = middle - other.middle, float(np.hypot(error, other.error))
        seen = seen - np.log(other.seen)
    logs = mean_interval(middle, error, factor, level, least=error)
    if logs["mean"] is not None:
        logs["mean"] = seen.mean()
    return {key: None if value is None else np.exp(value) for key, value in logs.items()}


def half_width(deviation: Any, seeds: Any, sampling: float, factor: float, level: float) -> Any:
    """Returns half the interval of a mean; arguments as of `mean_interval`."""
    tail = (1 + level) / 2
    over_seeds = stats.t.ppf(tail, seeds - 1) * deviation * np.sqrt(factor / seeds)
    return np.hypot(over_seeds, stats.norm.ppf(tail) * sampling)


def verdict(estimate: Estimate, margin: float = 0.0, neutral: float = 0.0) -> Verdict:
    """Returns what an interval of a difference decides.

    `equal` where it lies within `margin` of `neutral`, whatever its sign; `better` or `worse` where
    it lies to one side of `neutral`; else `undecided`. `one seed` has no interval.
    """
    mean, low, high = (estimate[key] for key in ("mean", "low", "high"))
    if mean is None:
        return "unknown"
    if low is None:
        return "one seed"
    if margin and neutral - margin <= low and high <= neutral + margin:
        return "equal"
    if low > neutral:
        return "better"
    return "worse" if high < neutral else "undecided"


def seeds_to_decide(
    differences: Any,
    margin: float,
    sampling: float = 0.0,
    factor: float = 1.0,
    level: float = LEVEL,
) -> int | None:
    """Returns how many seeds would decide, were mean and deviation what they are now.

    Returns:
        The smallest number of seeds, more than there are, whose interval would have a verdict; None
        if `MOST_SEEDS` would not do, as where the test set is the limit.
    """
    values = np.asarray(differences, dtype=np.float64)
    values = values[np.isfinite(values)]
    if values.size < 2:
        return None
    mean, deviation = abs(values.mean()), values.std(ddof=1)
    seeds = np.arange(values.size + 1, MOST_SEEDS + 1)
    half = half_width(deviation, seeds, sampling, factor, level)
    decided = seeds[(half < mean) | (mean + half <= margin)]
    return int(decided[0]) if decided.size else None


def speed_up(
    baseline: Any,
    other: Any,
    evaluations: np.ndarray,
    factor: float = 1.0,
    level: float = LEVEL,
) -> Estimate:
    """Returns the geometric mean over seeds of `baseline / other`, the steps that each took.

    Args:
        baseline: Steps for each seed; NaN is a run that did not arrive until the last evaluation.
        other: Likewise, of the same seeds.
        evaluations: The steps of all evaluations after the start. A run that had arrived by the
            first took at most so many.
        factor, level: As of `mean_interval`.

    Returns:
        The ratio, its interval, and `kind`: `measured`; `at least` or `at most` where some runs
        give a bound only, which has no interval; `unknown` where the bounds point both ways.
    """
    baseline, other = np.asarray(baseline, float), np.asarray(other, float)
    first, last = evaluations[[0, -1]]
    at_least = bool(np.isnan(baseline).any() or (other <= first).any())
    at_most = bool(np.isnan(other).any() or (baseline <= first).any())
    if at_least and at_most:
        return {"mean": None, "low": None, "high": None, "kind": "unknown"}
    # What arrives at the start, or never, is a bound: the first evaluation, the last.
    steps = [np.maximum(np.where(np.isnan(s), last, s), 1) for s in (baseline, other)]
    before, after = (arrivals_at(s, evaluations) for s in steps)
    ratio = geometric_interval(before, after, factor, level)
    if at_least or at_most:
        return {**ratio, "low": None, "high": None, "kind": "at least" if at_least else "at most"}
    return {**ratio, "kind": "measured"}


def sampling_error(one: float, other: float, examples: int | None) -> float:
    r"""Returns a bound on the standard error of a difference of accuracies from one test set.

    Each network is wrong on a share of the `examples`, so they differ on at most the sum of both
    shares, and $\mathrm{se} \le \sqrt{(e_1 + e_2) / m}$. Zero where `examples` is None: each seed
    has a test set of its own, and the seeds' spread holds its error.
    """
    if not examples:
        return 0.0
    return float(np.sqrt(max(2 - one - other, 0) / examples))


def shared_error(scores: np.ndarray) -> float:
    r"""Returns the standard error of a mean that comes from the examples, which all seeds share.

    Analysis of variance, seeds by examples: $\mathrm{se}^2 = (s^2 - \bar v/n)/m$ for m examples and
    n seeds, $s^2$ the variance over examples of their means over seeds, $\bar v$ the mean over
    examples of the variance over seeds, which the spread over seeds holds already; never below 0.

    Args:
        scores: `(seeds, examples)`, of a network or of the difference of two.
    """
    seeds, examples = scores.shape
    if examples < 2:
        return 0.0
    between = scores.mean(axis=0).var(ddof=1)
    within = scores.var(axis=0, ddof=1).mean() / seeds if seeds > 1 else 0.0
    return float(np.sqrt(max(between - within, 0.0) / examples))
