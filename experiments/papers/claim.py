"""Claims: their quantities and ranges, the measurements, and when they count as reproduced."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import wraps
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from experiments.report.inference import mean_interval
from experiments.study.data import Data

Source = Literal["theory", "published", "own reference"]
"""Where an expected value comes from. An own reference is this set-up's, measured before: the paper
has no number for so small a network, and the effect's direction and size are what is compared."""

Verdict = Literal["reproduced", "not reproduced", "fragile"]


class Range(NamedTuple):
    """The values of a quantity with which its claim holds."""

    low: float
    high: float
    expected: float | None = None

    def __str__(self) -> str:
        if self.expected is not None:
            return f"{self.expected:.4g} ({self.low:.4g} to {self.high:.4g})"
        if math.isinf(self.high):
            return f"at least {self.low:.4g}"
        if math.isinf(self.low):
            return f"at most {self.high:.4g}"
        return f"{self.low:.4g} to {self.high:.4g}"


def near(expected: float, *, relative: float = 0.0, absolute: float = 0.0) -> Range:
    """`expected`, give or take."""
    slack = absolute + relative * abs(expected)
    return Range(expected - slack, expected + slack, expected)


def at_least(low: float) -> Range:
    return Range(low, math.inf)


def at_most(high: float) -> Range:
    return Range(-math.inf, high)


def between(low: float, high: float) -> Range:
    return Range(low, high)


@dataclass(frozen=True)
class Check:
    """One quantity of a claim: where it should lie, and where it does."""

    quantity: str
    measured: ArrayLike
    """One value per seed."""
    allowed: Range
    source: Source

    @property
    def interval(self) -> tuple[float, float, float]:
        """Mean over seeds, and the ends of its 95 % interval (Student's t).

        Without a finite mean the ends are the smallest and the largest value.
        """
        values = np.asarray(self.measured, np.float64)
        if not np.isfinite(values).all():
            return np.median(values).item(), values.min().item(), values.max().item()
        mean = values.mean().item()
        if values.size == 1 or np.ptp(values) == 0:
            return mean, mean, mean
        found = mean_interval(values)
        return mean, found["low"].item(), found["high"].item()

    @property
    def verdict(self) -> Verdict:
        """Whether the interval lies inside the range.

        Reproduced: all of it; not reproduced: none of it; fragile: the seeds do not decide.
        """
        _, low, high = self.interval
        if self.allowed.low <= low and high <= self.allowed.high:
            return "reproduced"
        return "not reproduced" if _apart((low, high), self.allowed) else "fragile"

    def __str__(self) -> str:
        mean, low, high = self.interval
        shown = f"{mean:.4g}"
        return shown if low == high else f"{shown} ({low:.4g} to {high:.4g})"


def _apart(interval: tuple[float, float], allowed: Range) -> bool:
    low, high = interval
    if math.isnan(low):  # some seeds, or all, have no value
        return False
    return high < allowed.low or low > allowed.high


class Line(NamedTuple):
    """One curve of a figure."""

    label: str
    x: ArrayLike
    y: ArrayLike
    """`(x,)`, or `(seeds, x)`."""
    expected: bool = False
    """What should come out, drawn without markers."""


class Plot(NamedTuple):
    """One panel of a claim's figure."""

    title: str
    x_label: str
    y_label: str
    lines: Sequence[Line]
    log: Literal["", "x", "y", "xy"] = ""
    categories: Sequence[str] = ()
    """Names of the places on the x axis, for x = 0, 1, .."""


class Outcome(NamedTuple):
    """What was measured of a claim."""

    checks: Sequence[Check]
    plots: Sequence[Plot]
    remarks: Sequence[str] = ()
    """What a reader must know besides, a sentence each."""

    @property
    def verdict(self) -> Verdict:
        """That of all checks; fragile if it is not the same for all."""
        verdicts: list[Verdict] = [check.verdict for check in self.checks]
        return "fragile" if len(set(verdicts)) > 1 else verdicts[0]


@dataclass(frozen=True)
class Setting:
    """How a claim is measured this time."""

    quick: bool = False
    """Fewer seeds and smaller networks: wider intervals, in a fraction of the time."""
    first_seed: int = 0
    images: Data | None = None
    """MNIST, for the claims that need it."""

    def as_json(self) -> dict[str, Any]:
        """What of it decides what is measured, as JSON holds it."""
        return {"quick": self.quick, "seed": self.first_seed}

    def pick(self, full: int, quick: int) -> int:
        return quick if self.quick else full

    def seeds(self, full: int, quick: int) -> np.ndarray:
        """So many seeds, from `first_seed` up."""
        return self.first_seed + np.arange(self.pick(full, quick), dtype=np.uint32)

    @property
    def mnist(self) -> Data:
        """MNIST, of a claim with `needs_mnist`."""
        assert self.images is not None
        return self.images


def once(measure: Callable[[Setting], Any]) -> Callable[[Setting], Any]:
    """Keeps what was last measured: claims about the same runs, in turn, share them."""
    kept: dict[Any, Any] = {}

    @wraps(measure)
    def remembered(setting: Setting) -> Any:
        asked = (setting.quick, setting.first_seed, id(setting.images))
        if asked not in kept:
            kept.clear()
            # The images too, so that no others can have their id.
            kept[asked] = (setting.images, measure(setting))
        return kept[asked][1]

    return remembered


@dataclass(frozen=True)
class Claim:
    """What a paper says, and how it is tried."""

    name: str
    """As on the command line; its first word is the paper's first author."""
    sentence: str
    citation: str
    setup: str
    formula: str
    measure: Callable[[Setting], Outcome]
    group: Literal["ranked", "further", "contested"] = "ranked"
    """Contested claims are often repeated; they are measured because they fail, or hold in part."""
    needs_mnist: bool = False
