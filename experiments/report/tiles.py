"""Verdict tiles: the answers of one comparison, each with its number and its interval to draw."""

import math
from typing import Any, NamedTuple

from experiments.report.findings import (
    confirmed_pair,
    highest_known,
    percent,
    points,
    stable_rate,
    times,
)
from experiments.report.inference import verdict

Summary = dict[str, Any]


class Tile(NamedTuple):
    """One answer.

    Attributes:
        question: What is asked.
        answer: In a few words.
        number: The estimate, with its unit.
        interval: In words; empty where there is none.
        bar: Left end, right end, estimate and neutral value of the interval as percentages of the
            width of a drawing; None where there is none.
    """

    question: str
    answer: str
    number: str
    interval: str
    bar: tuple[float, float, float, float] | None


def tiles(summary: Summary, comparison: Summary) -> list[Tile]:
    """Returns what a comparison, each network at its best rate, says of accuracy, pace, rates."""
    pair = confirmed_pair(summary, comparison) or comparison["best_rate"]
    return [
        _accuracy(pair["accuracy_difference"]),
        _pace(pair["speed_up"]),
        _rates(summary, comparison),
    ]


def arm_tiles(arm: Summary) -> list[Tile]:
    """Returns what a comparison of arms, each at its best setting, says of accuracy and pace."""
    return [_accuracy(arm["accuracy_difference"]), _pace(arm["speed_up"])]


def _accuracy(difference: Summary) -> Tile:
    equal = f"Equal within {100 * difference['margin']:g} points"
    answer = {"better": "Higher", "worse": "Lower", "equal": equal}
    number = f"{points(difference['mean'])} points"
    if difference["low"] is None:
        return Tile("Does it end higher?", "One seed cannot tell", number, "", None)
    interval = f"{points(difference['low'])} to {points(difference['high'])}"
    word = answer.get(difference["verdict"], "Undecided")
    bar = _bar(difference["low"], difference["high"], difference["mean"], 0.0)
    return Tile("Does it end higher?", word, number, interval, bar)


def _pace(speed_ups: Summary) -> Tile:
    question = "Does it learn sooner?"
    if (known := highest_known(speed_ups)) is None:
        return Tile(question, "Unknown", "", "", None)
    target, ratio = known
    question = f"Does it reach {percent(float(target), 0)} sooner?"
    mean, kind = ratio["mean"], ratio["kind"]
    if kind != "measured":
        decided = {"at least": mean > 1, "at most": mean < 1}[kind]
        word = {"at least": "Sooner", "at most": "Later"}[kind] if decided else "Undecided"
        return Tile(question, word, f"{kind} {times(mean)} times the pace", "", None)
    number = f"{times(mean)} times the pace"
    if ratio["low"] is None:
        return Tile(question, "One seed cannot tell", number, "", None)
    word = {"better": "Sooner", "worse": "Later"}.get(verdict(ratio, neutral=1.0), "Undecided")
    interval = f"{times(ratio['low'])} to {times(ratio['high'])}"
    low, high = math.log(ratio["low"]), math.log(ratio["high"])
    return Tile(question, word, number, interval, _bar(low, high, math.log(mean), 0.0))


def _rates(summary: Summary, comparison: Summary) -> Tile:
    names = comparison["norm"], comparison["baseline"]
    networks = [summary["norms"][name] for name in names]
    rates = [network["largest_stable_learning_rate"] or 0.0 for network in networks]
    word = "Yes" if rates[0] > rates[1] else "No"
    if rates[0] == rates[1]:
        word = "No difference in the rates tried"
    number = f"{stable_rate(networks[0])} against {stable_rate(networks[1])}"
    return Tile("Does it stand larger learning rates?", word, number, "", None)


def _bar(low: float, high: float, mean: float, neutral: float) -> tuple[float, float, float, float]:
    reach = 1.15 * max(abs(low - neutral), abs(high - neutral), 1e-12)
    low, high, mean = (round(50 + 50 * (value - neutral) / reach, 2) for value in (low, high, mean))
    return low, high, mean, 50.0
