"""Simulated confirmations: what looking more than once at growing data does to verdicts.

Differences of two networks, one for each fresh seed, are normal. A rule says after how many seeds
one looks, and how wide the interval is then; one stops at the first look that decides.
"""

from collections.abc import Callable
from functools import cache
from itertools import product
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from scipy import stats
from scipy.optimize import brentq

from experiments.report.inference import LEVEL, half_width, level_of_look
from experiments.study.config import DEFAULTS

DEVIATION = 0.01
LOOKS = ((3, 10), (5, 20), (10, 40))
EFFECTS = (0.0, DEFAULTS["margin"], 0.01, 0.02)
ANSWERS = ("better", "worse", "equal", "undecided")

Width = Callable[[np.ndarray, int, int, int], np.ndarray]
"""(deviation, seeds seen, seeds at the first look, at the last) -> half the interval."""


class Rule(NamedTuple):
    """When to look, and how wide an interval is then."""

    looks: Callable[[int, int], list[int]]
    """From the seeds at the first and at the last look, those at each."""
    width: Width


def _student(level: Callable[[int, int], float]) -> Width:
    return lambda deviation, seen, first, last: half_width(
        deviation, seen, 0.0, 1.0, level(first, last)
    )


@cache
def pocock(first: int, last: int) -> float:
    """Returns the level of each of two looks whose normal means are both held in 95 %.

    The boundary of Pocock (1977), whatever the share of the first look in the seeds.
    """
    correlation = np.sqrt(first / last)
    both: Any = stats.multivariate_normal
    normal = both(mean=[0, 0], cov=[[1, correlation], [correlation, 1]])

    def missing(bound: float) -> float:
        return normal.cdf([bound, bound], lower_limit=[-bound, -bound]) - LEVEL

    bound: Any = brentq(missing, 1.9, 2.4)
    return float(2 * stats.norm.cdf(bound) - 1)


def _anytime(deviation: np.ndarray, seen: int, first: int, last: int) -> np.ndarray:
    """Returns half a confidence sequence of a normal mean, valid at all looks (Wang & Ramdas 2023).

    Where the Bayes factor of the t statistic, with a standard normal prior on the mean in standard
    deviations, stays below 1 / 5 %.
    """
    grown = 1 + seen
    bound = (np.sqrt(grown) / (1 - LEVEL)) ** (2 / seen)
    if bound >= grown:
        return np.full_like(deviation, np.inf)
    squared = (seen - 1) * (bound - 1) / (1 - bound / grown)
    return deviation * np.sqrt(squared / seen)


_PLAIN = _student(lambda *_: LEVEL)
RULES: dict[str, Rule] = {
    "one look at the first seeds": Rule(lambda first, last: [first], _PLAIN),
    "one look at all": Rule(lambda first, last: [last], _PLAIN),
    "two looks, 97.5 % each (`--until-decided`)": Rule(
        lambda first, last: [first, last], _student(lambda *_: level_of_look(2))
    ),
    "two looks by Pocock's boundary": Rule(lambda first, last: [first, last], _student(pocock)),
    "a look after each, always valid": Rule(
        lambda first, last: [*range(first, last + 1)], _anytime
    ),
    "two looks, 95 % each": Rule(lambda first, last: [first, last], _PLAIN),
    "a look after each, 95 % each": Rule(lambda first, last: [*range(first, last + 1)], _PLAIN),
}


def measure(studies: int, seed: int) -> pd.DataFrame:
    """Returns a row for each rule, number of seeds and true gain, all of the same draws."""
    rows = []
    for (first, last), effect in product(LOOKS, EFFECTS):
        rng = np.random.default_rng(seed)
        drawn = effect + DEVIATION * rng.standard_normal((studies, last))
        for name, rule in RULES.items():
            frequencies = follow(rule, drawn, first, effect)
            rows.append(
                {"rule": name, "first": first, "last": last, "effect": effect, **frequencies}
            )
    return pd.DataFrame(rows)


def follow(rule: Rule, drawn: np.ndarray, first: int, effect: float) -> dict[str, float]:
    """Returns the share of each answer, of intervals that cover, and the mean number of seeds.

    Args:
        rule: When to look.
        drawn: Differences `(studies, seeds)`.
        first: Seeds at the first look.
        effect: The true difference.
    """
    studies, last = drawn.shape
    answers = np.full(studies, ANSWERS.index("undecided"))
    covered, seeds = np.zeros(studies, bool), np.zeros(studies)
    undecided = np.arange(studies)
    for seen in rule.looks(first, last):
        values = drawn[undecided, :seen]
        mean, deviation = values.mean(1), values.std(1, ddof=1)
        half = rule.width(deviation, seen, first, last)
        answers[undecided] = _answers(mean - half, mean + half)
        covered[undecided], seeds[undecided] = abs(mean - effect) <= half, seen
        undecided = undecided[answers[undecided] == ANSWERS.index("undecided")]
    shares = {name: float(np.mean(answers == i)) for i, name in enumerate(ANSWERS)}
    return shares | {"covered": float(covered.mean()), "seeds": float(seeds.mean())}


def _answers(low: np.ndarray, high: np.ndarray) -> np.ndarray:
    margin = DEFAULTS["margin"]
    within = (low >= -margin) & (high <= margin)
    conditions = [within, low > 0, high < 0]
    return np.select(conditions, [ANSWERS.index(a) for a in ("equal", "better", "worse")], 3)


def tables(data: pd.DataFrame) -> dict[str, pd.DataFrame]:
    """Returns a table for each number of seeds."""
    return {
        f"looks at {first} and at {last} fresh seeds": _table(data[data["last"] == last])
        for first, last in LOOKS
    }


def _table(rows: Any) -> pd.DataFrame:
    columns = {
        "true gain, points": [f"{100 * effect:g}" for effect in rows["effect"]],
        "rule": rows["rule"],
        **{f"{n}, %": [f"{100 * share:.1f}" for share in rows[n]] for n in (*ANSWERS, "covered")},
        "seeds, mean": [f"{seeds:.1f}" for seeds in rows["seeds"]],
    }
    return pd.DataFrame(columns)


def notes(studies: int) -> list[str]:
    """Returns how the tables of looks were made, and what the rules are."""
    return [
        f"Looks: {SCALE * studies} confirmations of each case; the difference of two networks over "
        f"fresh seeds is normal with a standard deviation of {100 * DEVIATION:g} point. One stops "
        "at the first look that decides; covered is the interval of that look.",
        "Pocock's boundary: $P(|Z_1| > c \\text{ or } |Z_2| > c) = 5\\,\\%$ with correlation "
        "$\\sqrt{n_1/n_2}$, taken of t. Always valid: Wang & Ramdas (2023), Anytime-valid t-tests "
        "and confidence sequences, prior variance 1.",
    ]


SCALE = 50
"""Confirmations for each study that is asked for: they are cheap, all drawn at once."""
