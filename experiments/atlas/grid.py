"""Grid of the atlas: the networks that are trained, and the settings of each.

Depth, batch size, activation and norm need a program each (`Program`); learning rate, initial scale
and seed are rows of one.
"""

from collections.abc import Iterator, Mapping
from itertools import product
from typing import Any, NamedTuple

from experiments.papers.tools import stand_ins
from jbn import Ghost, Renorm, Running

LEARNING_RATES = (0.01, 0.03, 0.1, 0.3, 1.0, 3.0)
INIT_SCALES = (0.3, 1.0, 3.0)
"""Of all initial kernels, times He's (ReLU) or LeCun's (sigmoid)."""
SEEDS = 5
STEPS = 500
WIDTH = 64
GROUP_SIZE = 4

_RIVALS = ("no norm", "batch norm", "layer norm")
NORMS: Mapping[str, Any] = {
    name: stand_ins.NORMS[name] for name in ("no norm", "layer norm", "group norm")
} | {
    "batch norm": stand_ins.BATCH_NORM,
    "renorm": Renorm(),
    "running": Running(),
    "ghost": Ghost(GROUP_SIZE),
}


class Program(NamedTuple):
    """A network and the size of its batches, compiled as one program."""

    depth: int
    batch_size: int
    activation: str
    norm: str

    def __str__(self) -> str:
        return f"{self.norm}, {self.depth} {self.activation} layers, batches of {self.batch_size}"


def programs() -> list[Program]:
    """Returns all programs, each once: 60."""
    return list(dict.fromkeys(_programs()))


def _programs() -> Iterator[Program]:
    # Depth, batch size and activation: where it helps.
    for depth, batch_size, norm in product((1, 3, 10), (4, 32, 256), _RIVALS):
        yield Program(depth, batch_size, "relu", norm)
    for (depth, batch_size), norm in product(((3, 32), (3, 256), (10, 32)), _RIVALS):
        yield Program(depth, batch_size, "sigmoid", norm)
    # Batches of 2 to 1024, and its variants there.
    for batch_size, norm in product((2, 1024), _RIVALS):
        yield Program(3, batch_size, "relu", norm)
    for batch_size, norm in product((2, 4, 32, 256, 1024), ("group norm", "renorm", "running")):
        yield Program(3, batch_size, "relu", norm)
    for batch_size in (32, 256, 1024):  # groups of four: batches of 4 are batch norm's
        yield Program(3, batch_size, "relu", "ghost")


def constants() -> dict[str, Any]:
    """Returns what else decides the numbers, as JSON holds it."""
    return {
        "learning_rates": list(LEARNING_RATES),
        "init_scales": list(INIT_SCALES),
        "seeds": SEEDS,
        "steps": STEPS,
        "width": WIDTH,
        "group_size": GROUP_SIZE,
    }
