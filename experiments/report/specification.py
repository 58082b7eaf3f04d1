"""Figures as data: panels, axes and marks, which the page draws and matplotlib draws for paper.

A figure is described once, from runs `(norm, seed, ...)` at one learning rate for each network.
Its marks say whose they are, so that the page can put together those of any networks at any rates.
"""

import base64
from dataclasses import dataclass, field, fields, is_dataclass
from typing import Any, Literal

import numpy as np

# `nines` is linear in the logarithm of what is missing to 100 %: 90, 99 and 99.9 % are equally
# far apart, so that two networks near the top can be told apart.
Scale = Literal["linear", "log", "nines"]
MOST_NINES = 99.9  # what is higher is drawn there


def top_of_nines(most: float) -> float:
    """Returns where an axis of `nines` ends that shows values up to `most`."""
    return min(MOST_NINES, 100 - 0.7 * (100 - min(most, MOST_NINES)))


@dataclass(frozen=True)
class Axis:
    """One axis of a panel.

    Attributes:
        label: What it shows, with its unit.
        scale: How values are spread along it.
        limits: The ends; None leaves them to the data, as `nines` does its upper end.
        ticks: Values and their labels; empty leaves them to the scale.
        unit: Written after every value.
        digits: Significant digits of a value, or decimals where `decimals`.
        decimals: Says that `digits` counts decimals.
        zero: Says that zero belongs on it.
        steps: Says that it counts training steps, which the page may show as epochs or seconds.
        either: Says that the reader may choose between `nines` and `linear`.
    """

    label: str
    scale: Scale = "linear"
    limits: tuple[float, float] | None = None
    ticks: tuple[tuple[float, str], ...] = ()
    unit: str = ""
    digits: int = 3
    decimals: bool = False
    zero: bool = False
    steps: bool = False
    either: bool = False


@dataclass(frozen=True)
class Curve:
    """A network's line: the mean over its runs, in a band from the smallest to the largest.

    Attributes:
        network: The network's number.
        x: Where it is measured.
        runs: A value for each run and `x`, `(run, x)`; NaN where there is none.
        dash: The line's dashes if they do not tell the network; its label goes to the line's end.
        label: What is written at the line's end instead of the network's name.
        points: Draws every run as a point.
        every: Draws the mean only where every run has a value, and the runs one by one.
        shift: Moves the curve along a logarithmic axis by a few per cent, off its neighbours.
    """

    network: int
    x: np.ndarray
    runs: np.ndarray
    dash: Literal["", "solid", "dot"] = ""
    label: str = ""
    points: bool = False
    every: bool = False
    shift: float = 0.0
    kind: str = field(default="curve", init=False)


@dataclass(frozen=True)
class Marks:
    """Single marks of a network: crosses for failed runs, diamonds for arrivals.

    Attributes:
        network: The network's number.
        x: Where they are.
        y: Where they are.
        said: What each says when it is pointed at.
        shape: How they look.
        labels: What is written beside each.
        shift: As of a curve.
    """

    network: int
    x: np.ndarray
    y: np.ndarray
    said: list[str]
    shape: Literal["cross", "arrival"]
    labels: list[str]
    shift: float = 0.0
    kind: str = field(default="marks", init=False)


@dataclass(frozen=True)
class Density:
    """A network's distribution at every step: `heights` `(x, bin)` between `edges`.

    Each height is a byte, 255 times the root of a density as a share of `highest`.
    """

    network: int
    x: np.ndarray
    edges: np.ndarray
    heights: np.ndarray
    highest: float
    kind: str = field(default="density", init=False)


@dataclass(frozen=True)
class Level:
    """A horizontal line of no network, with a word at its left end."""

    y: float
    label: str = ""
    kind: str = field(default="level", init=False)


@dataclass(frozen=True)
class Reference:
    """A dotted line of no network that is drawn to the height of the panel."""

    x: np.ndarray
    y: np.ndarray
    label: str
    kind: str = field(default="reference", init=False)


Mark = Curve | Marks | Density | Level | Reference


@dataclass(frozen=True)
class Panel:
    """Axes with marks on them."""

    x: Axis
    y: Axis
    marks: list[Mark]
    title: str = ""
    network: int | None = None  # whose panel it is, if it is one network's


@dataclass(frozen=True)
class Figure:
    """Panels in a grid of `columns`, whose vertical axes are alike if `shared`.

    With `arms` a mark stands for all networks of its network's norm, whichever are chosen.
    """

    panels: list[Panel]
    columns: int = 1
    shared: bool = False
    arms: bool = False


class Packer:
    """Arrays of figures as text, each kept once: `arrays` holds them, and a figure their numbers.

    An array is 16 bits for each value between its smallest and its largest, in logarithms where all
    are positive and they span more than two decades. 65535 is no value. Bytes stay bytes.
    """

    def __init__(self) -> None:
        self.arrays: list[dict[str, Any]] = []
        self._known: dict[tuple[Any, ...], int] = {}

    def pack(self, value: Any) -> Any:
        """Returns `value` as JSON's types; defaults of dataclasses are left out."""
        if isinstance(value, np.ndarray):
            return self._number(value)
        if is_dataclass(value):
            kept = {f.name: getattr(value, f.name) for f in fields(value)}
            plain = {f.name for f in fields(value) if f.init and _is_default(f, kept[f.name])}
            return {name: self.pack(v) for name, v in kept.items() if name not in plain}
        if isinstance(value, list | tuple):
            return [self.pack(item) for item in value]
        if isinstance(value, dict):
            return {str(key): self.pack(item) for key, item in value.items()}
        return value.item() if isinstance(value, np.generic) else value

    def _number(self, array: np.ndarray) -> int:
        key = array.shape, array.dtype.str, array.tobytes()
        if key not in self._known:
            self._known[key] = len(self.arrays)
            self.arrays.append(packed(array))
        return self._known[key]


def packed(array: np.ndarray) -> dict[str, Any]:
    """Returns an array in 16 bits a value; integers, and few values, as they are."""
    shape = list(array.shape)
    if array.dtype == np.uint8:
        return {"shape": shape, "bytes": base64.b64encode(array.tobytes()).decode()}
    if array.dtype.kind in "iu" or array.size < 16:
        values = [float(f"{v:.7g}") if np.isfinite(v) else None for v in np.ravel(array)]
        return {"shape": shape, "values": values}
    known = np.isfinite(array)
    least, most = (float(f(array[known])) if known.any() else 0.0 for f in (np.min, np.max))
    log = least > 0 and most > 100 * least
    values = np.log(np.where(known, array, 1)) if log else np.where(known, array, 0)
    low, high = (np.log(least), np.log(most)) if log else (least, most)
    codes = np.round((values.astype(float) - low) / max(high - low, 1e-30) * 65534)
    codes = np.where(known, codes, 65535).astype("<u2")
    text = base64.b64encode(codes.tobytes()).decode()
    return {"shape": shape, "low": low, "high": high, "log": log, "codes": text}


def _is_default(of: Any, value: Any) -> bool:
    return not isinstance(value, np.ndarray) and value == of.default
