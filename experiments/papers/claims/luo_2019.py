"""Luo et al. 2019: batch norm as a regulariser, told apart from batch norm as an optimiser.

Networks are compared where their training loss is the same, however many steps it took them.
"""

from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from experiments.papers.claim import Check, Claim, Line, Outcome, Plot, Setting, at_least, once
from experiments.papers.tools.mlp import cross_entropy
from experiments.papers.tools.spread import spread_each
from experiments.papers.tools.stand_ins import BATCH_NORM, beside_no_norm, stand_ins
from experiments.papers.tools.training import (
    Images,
    State,
    Task,
    advance,
    begin,
    infer,
    pixels,
    relu_task,
    standardized,
    with_population_stats,
)

_DEPTH = 2
_EXAMPLES = 1000
_TESTED = 2000
_EPOCHS = 20
_BATCH_SIZES = (8, 128)
_RATE_PER_EXAMPLE = 0.2 / 128
_TARGET = 0.05  # training loss
_NOTICEABLE = 0.002
"""Of accuracy, two tenths of a point."""


class Course(NamedTuple):
    """After each epoch, with the population's statistics."""

    train_loss: jax.Array
    test_accuracy: jax.Array


def train(
    task: Task, epochs: int, images: Images, seed: jax.Array, learning_rate: jax.Array
) -> Course:
    """Trains on 1000 images of the seed's own."""
    blocks = images.train.shape[0] // _EXAMPLES
    rows = (seed % blocks) * _EXAMPLES + jnp.arange(_EXAMPLES)
    few = images._replace(
        train=jnp.asarray(images.train)[rows], train_labels=jnp.asarray(images.train_labels)[rows]
    )

    def look(state: State, _: None) -> tuple[State, Course]:
        state = advance(task, few, state, _EXAMPLES // task.batch_size)[0]
        seen = with_population_stats(task, few, state)
        fitted = infer(task, seen, pixels(few, few.train))[0]
        tested = infer(task, seen, pixels(few, jnp.asarray(few.test)))[0]
        right = jnp.mean(jnp.argmax(tested, axis=1) == few.test_labels)
        return state, Course(cross_entropy(fitted, few.train_labels), right)

    return jax.lax.scan(look, begin(task, few, seed, learning_rate), length=epochs)[1]


def at_loss(target: float, train_loss: np.ndarray, value: np.ndarray) -> np.ndarray:
    """Reads `value` where the training loss first comes down to `target`.

    Linear in the logarithm of the loss between two looks.

    Args:
        target: the loss.
        train_loss: `(seeds, times)`.
        value: likewise.

    Returns:
        `(seeds,)`; NaN for a run that never gets there, or is there at the first look.
    """
    there = train_loss <= target
    after = np.argmax(there, axis=1)
    found = np.full(len(value), np.nan)
    for i in np.flatnonzero(there.any(axis=1) & (after > 0)):
        ends = slice(after[i] - 1, after[i] + 1)
        losses = np.log(train_loss[i, ends])[::-1]
        found[i] = np.interp(np.log(target), losses, value[i, ends][::-1])
    return found


def _seeds(setting: Setting) -> np.ndarray:
    return setting.seeds(full=12, quick=4)


@once
def _courses(setting: Setting, norms: tuple[Any, ...]) -> list[dict[int, Course]]:
    """For each norm, by batch size: `(seeds, epochs)`."""
    images, seeds = standardized(setting.mnist), _seeds(setting)
    images = images._replace(test=images.test[:_TESTED], test_labels=images.test_labels[:_TESTED])

    def of(batch_size: int) -> dict[int, Course]:
        tasks = [relu_task(_DEPTH, norm)._replace(batch_size=batch_size) for norm in norms]
        runs = {i: partial(train, task, _EPOCHS) for i, task in enumerate(tasks)}
        rates = np.full(len(seeds), _RATE_PER_EXAMPLE * batch_size, np.float32)
        return spread_each(runs, seeds, rates, given=(images,))

    by_size = {size: of(size) for size in _BATCH_SIZES}
    return [{size: found[i] for size, found in by_size.items()} for i in range(len(norms))]


def _at_target(courses: dict[int, Course]) -> dict[int, np.ndarray]:
    return {
        size: at_loss(_TARGET, np.asarray(c.train_loss), np.asarray(c.test_accuracy))
        for size, c in courses.items()
    }


def measure(setting: Setting, norm: Any = BATCH_NORM) -> Outcome:
    """Test accuracy where the training loss is the same, with less without, by batch size."""
    without, with_norm = beside_no_norm(_courses, setting, norm)
    reached = [_at_target(courses) for courses in (without, with_norm)]
    gains = {size: reached[1][size] - reached[0][size] for size in without}
    checks = [
        Check(
            f"batches of {size}: test accuracy gained at training loss {_TARGET:g}",
            gain,
            at_least(_NOTICEABLE),
            "published",
        )
        for size, gain in gains.items()
    ]
    small, large = gains
    checks.append(
        Check(
            f"gained more with batches of {small} than with {large}",
            gains[small] - gains[large],
            at_least(_NOTICEABLE),
            "published",
        )
    )
    epochs = np.arange(1, _EPOCHS + 1)
    sizes = [*gains]
    plots = [
        Plot(
            f"At training loss {_TARGET:g}",
            "batch size",
            "test accuracy",
            [
                Line(name, sizes, np.stack([*found.values()], axis=1))
                for name, found in zip(("no norm", "batch norm"), reached)
            ],
            log="x",
        ),
        Plot(
            f"Batches of {large}",
            "epoch",
            "training loss",
            [
                Line(name, epochs, courses[large].train_loss)
                for name, courses in (("no norm", without), ("batch norm", with_norm))
            ],
            log="y",
        ),
    ]
    epoch_of = [
        np.mean(
            at_loss(
                _TARGET, c[large].train_loss, np.broadcast_to(epochs, c[large].train_loss.shape)
            )
        )
        for c in (without, with_norm)
    ]
    remark = (
        f"With batches of {large} the loss is there after {epoch_of[0]:.1f} epochs without a norm, "
        f"and {epoch_of[1]:.1f} with it: that is optimisation, and no part of this comparison."
    )
    return Outcome(checks, plots, [remark])


def _setup(setting: Setting) -> str:
    return (
        f"MNIST, standardised, {_EXAMPLES} training images of each seed's own; {_DEPTH} hidden "
        "layers of 100 ReLU, He initialisation, SGD, batches of "
        f"{', '.join(map(str, _BATCH_SIZES))}, learning rate {_RATE_PER_EXAMPLE:.3g} "
        f"times the batch size, up to {_EPOCHS} epochs, {len(_seeds(setting))} seeds. "
        f"Loss and accuracy on {_TESTED} test images with the population's statistics, after each "
        "epoch; between two epochs linear in the logarithm of the training loss."
    )


REGULARISES = Claim(
    name="luo-matched-loss",
    sentence="Batch norm regularises: where the training loss is the same, it generalises better "
    "than no norm, the more so the smaller the batch.",
    citation="Luo, Wang, Shao & Peng 2019, Towards Understanding Regularization in Batch "
    "Normalization, ICLR, arXiv:1809.00846, sections 3 and 5",
    setup=_setup,
    formula=f"test accuracy at training loss {_TARGET:g}, with batch norm less without; the "
    "paper's penalty on gamma is in proportion to 1/batch size",
    measure=measure,
    needs_mnist=True,
    registered="2026-11-28",
    changes=(
        "2026-11-28: batches of 8 and 128 alone, fewer epochs and more seeds, after a look at the "
        "quick form. The ranges stand.",
    ),
    stand_ins=stand_ins(measure, must_fail=("no norm",)),
)
