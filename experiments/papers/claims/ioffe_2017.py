"""Ioffe 2017: batch renormalization, for batches that are tiny or not drawn at random."""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from experiments.papers.claim import (
    Check,
    Claim,
    Line,
    Outcome,
    Plot,
    Range,
    Setting,
    at_least,
    between,
)
from experiments.papers.tools.mlp import MLP
from experiments.papers.tools.spread import spread_each
from experiments.papers.tools.training import (
    Images,
    State,
    Task,
    accuracy,
    advance,
    begin,
    standardized,
    uniformly,
)
from jbn import Renorm, Standard, Variant

_RAMP = (200, 800)


class Batches(NamedTuple):
    """A kind of batch, how long to train on it, and what renormalization should gain there."""

    name: str
    size: int
    steps: int
    learning_rate: float
    gain: Range
    draw: Callable[[Images, jax.Array, int], jax.Array] = uniformly


def two_classes(images: Images, key: jax.Array, batch_size: int) -> jax.Array:
    """Rows of two classes, half of each, of a training set that is in the order of its labels."""
    which, within = jax.random.split(key)
    classes = jax.random.choice(which, 10, (2,), replace=False)
    start = jnp.searchsorted(images.train_labels, classes)
    end = jnp.searchsorted(images.train_labels, classes, side="right")
    return jax.random.randint(within, (batch_size // 2, 2), start[None], end[None]).ravel()


KINDS = (
    Batches("32 at random", 32, 1500, 0.1, between(-0.006, 0.006)),
    Batches("16 of each of 2 classes", 32, 1500, 0.1, at_least(0.035), two_classes),
    Batches("4 at random", 4, 3000, 0.05, at_least(0.01)),
    Batches("2 at random", 2, 3000, 0.05, at_least(0.1)),
)


def ramped(start: int, end: int, step: jax.Array, key: jax.Array) -> Renorm:
    """Batch norm up to one step, renormalization in full from the other, and between in between."""
    progress = jnp.clip((step - start) / (end - start), 0, 1)
    return Renorm(r_max=1 + 2 * progress, d_max=5 * progress)


def trained_accuracy(
    task: Task, steps: int, images: Images, seed: jax.Array, learning_rate: jax.Array
) -> jax.Array:
    """With the running average of the statistics; mean of five looks in the last third.

    Such networks are better at one step and worse at another.
    """

    def look(state: State, _: None) -> tuple[State, jax.Array]:
        state = advance(task, images, state, steps // 15)[0]
        return state, accuracy(task, images, state)

    start = begin(task, images, seed, learning_rate)
    state = advance(task, images, start, steps - steps // 15 * 5)[0]
    return jnp.mean(jax.lax.scan(look, state, length=5)[1])


def in_order(images: Images) -> Images:
    """The training set sorted by label."""
    order = np.argsort(images.train_labels, kind="stable")
    return images._replace(train=images.train[order], train_labels=images.train_labels[order])


def measure(setting: Setting) -> Outcome:
    """Accuracy of batch renormalization less that of batch norm, by kind of batch."""
    seeds = setting.seeds(full=8, quick=4)
    shorter = setting.pick(1, 3)
    kinds = KINDS[1:2] if setting.quick else KINDS
    images = in_order(standardized(setting.mnist))
    start, end = (step // shorter for step in _RAMP)

    networks: dict[str, tuple[Variant | None, Any]] = {
        "batch norm": (Standard(), None),
        "renormalization": (Standard(), partial(ramped, start, end)),
    }
    if not setting.quick:
        networks["without"] = (None, None)

    def run(kind: Batches, norm: Variant | None, norm_at: Any) -> Callable[..., jax.Array]:
        model = MLP((100, 100), jax.nn.relu, jax.nn.initializers.he_normal(), norm)
        task = Task(model, kind.size, kind.draw, norm_at)
        return partial(trained_accuracy, task, kind.steps // shorter)

    def of(kind: Batches) -> dict[str, np.ndarray]:
        runs = {name: run(kind, *network) for name, network in networks.items()}
        rates = np.full(len(seeds), kind.learning_rate, np.float32)
        return spread_each(runs, seeds, rates, given=(images,))

    by_kind = [of(kind) for kind in kinds]
    found = {name: np.stack([one[name] for one in by_kind], axis=1) for name in networks}

    def allowed(kind: Batches) -> Range:
        return at_least(0.0) if setting.quick else kind.gain

    gained = found["renormalization"] - found["batch norm"]
    checks = [
        Check(f"{kind.name}: accuracy gained", gained[:, i], allowed(kind), "regression")
        for i, kind in enumerate(kinds)
    ]
    plot = Plot(
        "Accuracy by kind of batch",
        "",
        "test accuracy",
        [Line(name, range(len(kinds)), values) for name, values in found.items()],
        categories=[kind.name for kind in kinds],
    )
    return Outcome(checks, [plot])


RENORM = Claim(
    name="ioffe-renorm",
    sentence="Batch renormalization helps where batches are tiny or not drawn at random, and costs "
    "nothing where they are neither.",
    citation="Ioffe 2017, Batch Renormalization: Towards Reducing Minibatch Dependence in "
    "Batch-Normalized Models, NeurIPS, arXiv:1702.03275",
    setup="MNIST, standardised; 2 hidden layers of 100 ReLU, He initialisation, SGD. Batches of "
    "32: learning rate 0.1, 1500 steps; of 4 and 2: 0.05, 3000 steps. 8 seeds. r_max 1 to 3 "
    "and d_max 0 to 5 between steps 200 and 800; running average with momentum 0.99.",
    formula="test accuracy of batch renormalization less that of batch norm, mean of five steps in "
    "the last third",
    measure=measure,
    needs_mnist=True,
)
