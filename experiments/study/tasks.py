"""Tasks of a study: what a network's outputs are judged by, example by example.

Losses and scores are functions of all examples' outputs and targets; higher scores are better.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

import jax
import jax.numpy as jnp
import numpy as np
import optax

from experiments.study.values import ConfigError, check, is_text, show


class Task(Protocol):
    """A loss that a network is trained by, and a score that it is judged by.

    Attributes:
      variable: the score's name in files, after that of the split: `test_accuracy`.
      score_name: what the score is called, "accuracy".
      loss_name: what the mean of `loss` is called, "cross-entropy".
      loss_unit: its unit.
    """

    variable: str
    score_name: str
    loss_name: str
    loss_unit: str

    @property
    def counts_classes(self) -> bool:
        """Tells whether targets are labels, and a network has an output for each."""
        ...

    def loss(self, outputs: jax.Array, targets: Any) -> jax.Array:
        """Returns the loss of each example, `(N,)`."""
        ...

    def score(self, outputs: jax.Array, targets: Any) -> jax.Array:
        """Returns what each example adds to the score, `(N,)`."""
        ...

    def overall(self, score: jax.Array, targets: Any) -> jax.Array:
        """Returns the score of a split, from the mean of `score` and all its targets."""
        ...


@dataclass(frozen=True)
class Classification:
    """Cross-entropy of class scores, one output for each class, judged by accuracy."""

    variable = score_name = "accuracy"
    loss_name, loss_unit = "cross-entropy", "nat"
    counts_classes = True

    def loss(self, outputs: jax.Array, targets: Any) -> jax.Array:
        """Returns -log softmax(outputs)[target]."""
        return optax.softmax_cross_entropy_with_integer_labels(outputs, targets)

    def score(self, outputs: jax.Array, targets: Any) -> jax.Array:
        """Tells whether the largest output is the target's."""
        return jnp.argmax(outputs, axis=-1) == targets

    def overall(self, score: jax.Array, targets: Any) -> jax.Array:
        """Returns the fraction that is right."""
        return score


@dataclass(frozen=True)
class Regression:
    """Squared error of real targets, one output for each, judged by R^2.

    R^2 = 1 - mean squared error / variance of the split's targets: 1 is perfect, 0 is as good as
    always answering their mean, and below 0 is worse.
    """

    variable, score_name = "r2", "explained variance"
    loss_name, loss_unit = "squared error", "unit of the target, squared"
    counts_classes = False

    def loss(self, outputs: jax.Array, targets: Any) -> jax.Array:
        """Returns (output - target)^2, mean over the targets of an example."""
        return jnp.mean(jnp.square(outputs - targets), axis=-1)

    score = loss

    def overall(self, score: jax.Array, targets: Any) -> jax.Array:
        """Returns R^2, from the mean squared error."""
        return 1 - score / jnp.mean(jnp.var(targets, axis=0))


@dataclass(frozen=True)
class Objective:
    """A loss and a score of one's own.

    Attributes:
      loss: (outputs, targets) -> the loss of each example, `(N,)`.
      score: (outputs, targets) -> what is judged of each example, `(N,)`; its mean is the score of
        a split, and higher is better.
      score_name: what the report calls it.
      counts_classes: whether targets are labels, counted from 0, and not real numbers.

    Raises:
        ConfigError: for a field of the wrong type.
    """

    variable = "score"

    loss: Callable[[Any, Any], jax.Array]
    score: Callable[[Any, Any], jax.Array]
    score_name: str = "score"
    counts_classes: bool = False
    loss_name: str = "loss"
    loss_unit: str = "1"

    def __post_init__(self) -> None:
        for field in ("loss", "score"):
            check(self, field, callable, "a function of outputs and targets")
        for field in ("score_name", "loss_name", "loss_unit"):
            check(self, field, is_text, "a non-empty string")

    def overall(self, score: jax.Array, targets: Any) -> jax.Array:
        """Returns the mean."""
        return score


# In files, after the name of a split: what each of its examples adds to the score.
EXAMPLE_SCORE = "example_score"


def score_type(task: Task) -> type[np.generic]:
    """Returns the type in which examples' scores are kept: a byte where they are right or wrong."""
    return np.int8 if task.variable == "accuracy" else np.float32


DEFAULT = Classification()
WORDS: dict[str, Task] = {"classification": DEFAULT, "regression": Regression()}


def check_outputs(task: Task, outputs: Any, examples: int, width: int) -> None:
    """Checks that a network's outputs, given by shape and dtype, are right for `task`.

    Args:
        task: The task.
        outputs: Of so many `examples`.
        examples: How many there are.
        width: How many classes, or numbers of a target, there are.

    Raises:
        ConfigError: saying what came and what is needed.
    """
    if not hasattr(outputs, "shape"):
        raise ConfigError(f"network: needs to return one array, returned {show(type(outputs))}.")
    if isinstance(task, Objective):
        targets = (examples,) if task.counts_classes else (examples, width)
        of = jnp.int32 if task.counts_classes else jnp.float32
        for name in ("loss", "score"):
            result = jax.eval_shape(getattr(task, name), outputs, jax.ShapeDtypeStruct(targets, of))
            shape = getattr(result, "shape", None)
            if shape != (examples,):
                raise ConfigError(
                    f"task: {name} gives {result if shape is None else shape} for {examples} "
                    f"examples, needs one number for each, ({examples},)."
                )
    elif outputs.shape != (examples, width) or outputs.dtype != jnp.float32:
        each = "class" if task.counts_classes else "number of a target"
        raise ConfigError(
            f"network: gives {outputs.dtype}{list(outputs.shape)} for {examples} examples, needs "
            f"float32[{examples}, {width}]: an output for each {each}."
        )
