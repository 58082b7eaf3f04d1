"""Verdict tiles: the answers of one comparison, each with its number and its interval to draw."""

import math
from typing import Any, NamedTuple

from experiments.report.findings import (
    confirmed_arm,
    confirmed_pair,
    highest_known,
    percent,
    points,
    stable_rate,
    times,
)
from experiments.report.inference import verdict
from experiments.system.text import counted

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
        source: Whose numbers they are, where not those of the title; else empty.
    """

    question: str
    answer: str
    number: str
    interval: str = ""
    bar: tuple[float, float, float, float] | None = None
    source: str = ""


def tiles(summary: Summary, comparison: Summary) -> list[Tile]:
    """Returns what a comparison, each network at its best rate, says of accuracy, pace, rates."""
    confirmed = confirmed_pair(summary, comparison)
    source = _of_the_study(summary) if confirmed else ""
    pair = confirmed or comparison["best_rate"]
    return [*_of_pair(pair), _rates(summary, comparison)._replace(source=source)]


def arm_tiles(summary: Summary, arm: Summary) -> list[Tile]:
    """Returns what a comparison of arms says of accuracy and pace, each at its best setting.

    And of how many of all runs learned. With fresh seeds accuracy and pace are theirs.
    """
    confirmed = confirmed_arm(summary, arm)
    source = _of_the_study(summary) if confirmed else ""
    return [*_of_pair(confirmed or arm), _learned(arm)._replace(source=source)]


def _of_pair(pair: Summary) -> list[Tile]:
    level = f"{100 * pair['accuracy_difference']['level']:g} % interval"
    return [_accuracy(pair["accuracy_difference"], level), _pace(pair["speed_up"], level)]


def _of_the_study(summary: Summary) -> str:
    return f"of the study itself, {counted(len(summary['seeds']), 'seed')}"


def _accuracy(difference: Summary, level: str) -> Tile:
    equal = f"Equal within {100 * difference['margin']:g} points"
    answer = {"better": "Higher", "worse": "Lower", "equal": equal}
    number = f"{points(difference['mean'])} points"
    if difference["low"] is None:
        return Tile("Does it end higher?", "One seed cannot tell", number)
    interval = f"{level} {points(difference['low'])} to {points(difference['high'])}"
    word = answer.get(difference["verdict"], "Undecided")
    bar = _bar(difference["low"], difference["high"], difference["mean"], 0.0)
    return Tile("Does it end higher?", word, number, interval, bar)


def _pace(speed_ups: Summary, level: str) -> Tile:
    question = "Does it learn sooner?"
    if (known := highest_known(speed_ups)) is None:
        return Tile(question, "Unknown", "")
    target, ratio = known
    question = f"Does it reach {percent(float(target), 0)} sooner?"
    mean, kind = ratio["mean"], ratio["kind"]
    if kind != "measured":
        decided = {"at least": mean > 1, "at most": mean < 1}[kind]
        word = {"at least": "Sooner", "at most": "Later"}[kind] if decided else "Undecided"
        return Tile(question, word, f"{kind} {times(mean)} times the pace")
    number = f"{times(mean)} times the pace"
    if ratio["low"] is None:
        return Tile(question, "One seed cannot tell", number)
    word = {"better": "Sooner", "worse": "Later"}.get(verdict(ratio, neutral=1.0), "Undecided")
    interval = f"{level} {times(ratio['low'])} to {times(ratio['high'])}"
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
    return Tile("Does it stand larger learning rates?", word, number)


def _learned(arm: Summary) -> Tile:
    counts = [arm["did_not_learn"][name] for name in (arm["norm"], arm["baseline"])]
    learned = [1 - count["count"] / count["of"] for count in counts]
    word = "Yes" if learned[0] > learned[1] else "No"
    if learned[0] == learned[1]:
        word = "No difference"
    shares = [f"{count['of'] - count['count']} of {count['of']}" for count in counts]
    return Tile("Does it learn at more settings?", word, f"{' against '.join(shares)} runs learned")


def _bar(low: float, high: float, mean: float, neutral: float) -> tuple[float, float, float, float]:
    reach = 1.15 * max(abs(low - neutral), abs(high - neutral), 1e-12)
    low, high, mean = (round(50 + 50 * (value - neutral) / reach, 2) for value in (low, high, mean))
    return low, high, mean, 50.0
