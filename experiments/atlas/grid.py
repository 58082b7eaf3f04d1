"""Grid of the atlas: the networks that are trained, and the settings of each.

Depth, batch size, activation and norm need a program each (`Program`); learning rate, initial scale
and seed are rows of one.
"""

from collections.abc import Iterator, Mapping
from functools import partial
from itertools import product
from typing import Any, NamedTuple

import flax.linen as nn

from jbn import Ghost, Renorm, Running, Standard

LEARNING_RATES = (0.01, 0.03, 0.1, 0.3, 1.0, 3.0)
INIT_SCALES = (0.3, 1.0, 3.0)
"""Of all initial kernels, times He's (ReLU) or LeCun's (sigmoid)."""
SEEDS = 5
STEPS = 500
WIDTH = 64
GROUP_SIZE = 4

NORMS: Mapping[str, Any] = {
    "no norm": None,
    "batch norm": Standard(),
    "layer norm": nn.LayerNorm,
    "group norm": partial(nn.GroupNorm, num_groups=4),
    "renorm": Renorm(),
    "running": Running(),
    "ghost": Ghost(GROUP_SIZE),
}


class Program(NamedTuple):
    """What is compiled at once: a network, and the size of its batches."""

    depth: int
    batch_size: int
    activation: str
    norm: str

    def __str__(self) -> str:
        return f"{self.norm}, {self.depth} {self.activation} layers, batches of {self.batch_size}"


_RIVALS = ("no norm", "batch norm", "layer norm")


def programs() -> list[Program]:
    """Returns all programs, each once: 60."""
    return list(dict.fromkeys(_programs()))


def _programs() -> Iterator[Program]:
    # Where does it help? Depth, batch size and activation.
    for depth, batch_size, norm in product((1, 3, 10), (4, 32, 256), _RIVALS):
        yield Program(depth, batch_size, "relu", norm)
    for (depth, batch_size), norm in product(((3, 32), (3, 256), (10, 32)), _RIVALS):
        yield Program(depth, batch_size, "sigmoid", norm)
    # What do batches do to it? From 2 to 1024, and what its variants change.
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
