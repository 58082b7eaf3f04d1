"""Colours, dashes and markers of networks, the same on every page and on paper."""

import itertools
from collections.abc import Iterable
from dataclasses import dataclass, field

import xarray as xr

from experiments.report.arms import best_networks, has_arms, values_of
from experiments.report.runs import best_learning_rates, choosing_score
from experiments.report.seconds import seconds_per_step

INK, MUTED, RULE, PAPER = "#1b1f24", "#59636e", "#d8dde3", "#ffffff"
# Okabe and Ito's palette, two of its colours darkened to be seen on white.
COLOURS = ("#d55e00", "#0072b2", "#009e73", "#cc79a7", "#b87f00", "#2f8fc7", INK)

PATTERNS = 4  # of dashes

# Norms that have a colour of their own on every page.
_USUAL = ("no norm", "batch norm", "layer norm", "group norm")


@dataclass(frozen=True)
class Network:
    """A network as figures name and draw it.

    Attributes:
        name: Its name in the study.
        label: Its norm, which gives the colour: networks of one norm differ in dashes.
        colour: The colour's number.
        dash: The number of its dashes and of its marker.
        values: Of each field that the study has several values of, its own.
        best: The number of its best learning rate; None where rates are no choice.
        finals: Its mean score at every learning rate, by which values are chosen.
        arm: Says that it is its norm's best at any setting.
        seconds: Seconds for each step, if they were measured.
    """

    name: str
    label: str
    colour: int
    dash: int
    values: dict[str, float] = field(default_factory=dict)
    best: int | None = None
    finals: tuple[float, ...] = ()
    arm: bool = True
    seconds: float | None = None


def colours_of(labels: Iterable[str]) -> dict[str, int]:
    """Returns the number of each norm's colour: its own, or else the first that is free."""
    labels = dict.fromkeys(labels)
    own = {label: _USUAL.index(label) for label in labels if label in _USUAL}
    free = (number for number in itertools.count() if number not in own.values())
    return {label: own[label] if label in own else next(free) for label in labels}


def dashes_of(labels: Iterable[str]) -> list[int]:
    """Returns the number of each network's dashes: its own, or else the next that its norm lacks.

    Networks of one norm have one colour, and are told apart by `PATTERNS` dashes alone.
    """
    numbers: list[int] = []
    taken: dict[str, set[int]] = {}
    for i, label in enumerate(labels):
        theirs = taken.setdefault(label, set())
        free = (n for n in range(i, i + PATTERNS) if n % PATTERNS not in theirs)
        numbers.append(next(free, i))
        theirs.add(numbers[-1] % PATTERNS)
    return numbers


def networks(dataset: xr.Dataset) -> list[Network]:
    """Returns the networks of a study, in its order."""
    names = [str(name) for name in dataset.norm.values]
    labels = [str(x) for x in dataset.label.values] if has_arms(dataset) else names
    colours = colours_of(labels)
    rates = dataset.learning_rate.values.tolist()
    best = [rates.index(rate) for rate in best_learning_rates(dataset).values.tolist()]
    finals = choosing_score(dataset).mean("seed").transpose("norm", "learning_rate").values
    dashes = dashes_of(labels)
    chosen, seconds = {*best_networks(dataset).values()}, _seconds(dataset)
    return [
        Network(
            name,
            labels[i],
            colours[labels[i]],
            dashes[i],
            values_of(dataset, i),
            best[i],
            tuple(float(f"{x:.6g}") for x in finals[i]),
            i in chosen,
            seconds[i],
        )
        for i, name in enumerate(names)
    ]


def _seconds(dataset: xr.Dataset) -> list[float | None]:
    """Returns each network's median seconds for a step of one run, if the study measured them."""
    found = [seconds_per_step(dataset.isel(norm=i)) for i in range(dataset.norm.size)]
    return [None if one is None else float(one["median"]) for one in found]
