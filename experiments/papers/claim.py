"""Claims of papers: quantities, the ranges registered for them, measurements and verdicts."""

import math
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import wraps
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from experiments.report.inference import mean_interval
from experiments.study.data import Data

Source = Literal["theory", "published", "regression", "slogan"]
"""Where a range comes from.

Theory: a formula of the paper, or derived from it. Published: a number or a direction that the
paper reports. Regression: what this set-up gave before, since the paper has no number for so small
a network; it guards against change and confirms nothing. Slogan: what is often said, and no paper.
"""

Verdict = Literal["reproduced", "refuted", "mixed", "undecided"]


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
    control: bool = False
    """Whether it is a condition that the claim needs and is not reproduced by, such as what the
    networks without batch norm do."""

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

        Reproduced: all of it; refuted: none of it, or a seed without the finite number that is
        claimed; undecided: the seeds do not decide.
        """
        _, low, high = self.interval
        if self._lacks_a_number:
            return "refuted"
        if self.allowed.low <= low and high <= self.allowed.high:
            return "reproduced"
        return "refuted" if high < self.allowed.low or low > self.allowed.high else "undecided"

    @property
    def _lacks_a_number(self) -> bool:
        """Whether some seed is NaN, or infinite towards an end of the range that is finite."""
        low, high = np.min(self.measured), np.max(self.measured)  # NaN if one is
        beyond = (math.isfinite(self.allowed.low) and low == -math.inf) or (
            math.isfinite(self.allowed.high) and high == math.inf
        )
        return bool(np.isnan(low) or beyond)

    def __str__(self) -> str:
        mean, low, high = self.interval
        shown = f"{mean:.4g}"
        return shown if low == high else f"{shown} ({low:.4g} to {high:.4g})"


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
        """That of all checks, if it is the same for all that are no controls.

        Mixed: some are reproduced and some refuted. A control takes away and never adds: where it
        is not reproduced, neither is the claim.
        """
        tested: set[Verdict] = {check.verdict for check in self.checks if not check.control}
        controls: set[Verdict] = {check.verdict for check in self.checks if check.control}
        found = tested | controls if tested == {"reproduced"} else tested
        if len(found) == 1:
            return found.pop()
        return "mixed" if {"reproduced", "refuted"} <= found else "undecided"


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


def once(measure: Callable[..., Any]) -> Callable[..., Any]:
    """Keeps what was measured with the last setting: claims about the same runs share them.

    Other arguments than the setting must be hashable; what was measured with each is kept, such as
    a norm's runs beside those that its rivals are compared with.
    """
    kept: dict[Any, Any] = {}
    last: list[Setting] = []

    @wraps(measure)
    def remembered(setting: Setting, *given: Any) -> Any:
        if not (last and _is_same(setting, last[0])):
            kept.clear()
            last[:] = [setting]
        if given not in kept:
            kept[given] = measure(setting, *given)
        return kept[given]

    return remembered


def _is_same(a: Setting, b: Setting) -> bool:
    return a.as_json() == b.as_json() and a.images is b.images


@dataclass(frozen=True)
class StandIn:
    """Something else in batch norm's place: another norm, none, or a faulty one."""

    name: str
    """What stands there; norms are called as in `tools.stand_ins`."""
    measure: Callable[[Setting], Outcome]
    must_fail: bool = False
    """Whether it is a negative control: the claim must not come out reproduced with it."""


@dataclass(frozen=True, kw_only=True)
class Claim:
    """What a paper says, and how it is tried."""

    name: str
    """As on the command line; its first word is the paper's first author."""
    sentence: str
    citation: str
    """Authors and year, then title, where, and what in it."""
    setup: Callable[[Setting], str]
    """How it was measured, from the numbers that are used."""
    formula: str
    measure: Callable[[Setting], Outcome]
    group: Literal["ranked", "further", "contested", "slogan"] = "ranked"
    """Contested claims are often repeated; they are measured because they fail, or hold in part.
    Slogans are stated by no paper."""
    needs_mnist: bool = False
    registered: str
    """The date since which the ranges stand, before the run that they judge."""
    changes: Sequence[str] = ()
    """Ranges changed since, each with its date and reason."""
    stand_ins: Sequence[StandIn] = ()
    """At least one of them must fail."""

    @property
    def paper(self) -> str:
        """Authors and year."""
        found = re.match(r".*?\d{4}", self.citation)
        return found[0] if found else self.citation
