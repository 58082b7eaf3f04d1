"""Galloway et al. 2019: batch norm makes networks easier to mislead, by noise and on purpose."""

from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from experiments.papers.claim import (
    Check,
    Claim,
    Line,
    Outcome,
    Plot,
    Setting,
    at_least,
    at_most,
)
from experiments.papers.tools.mlp import cross_entropy
from experiments.papers.tools.spread import spread_each
from experiments.papers.tools.training import (
    NORMS,
    Images,
    Task,
    accuracy,
    advance,
    begin,
    infer,
    relu_task,
    unit_interval,
)

NOISE = 0.5
PERTURBATION = 0.05


class Accuracies(NamedTuple):
    """On the test set, as it is and changed."""

    clean: jax.Array
    noise: jax.Array
    adversarial: jax.Array


def accuracies(
    task: Task, steps: int, images: Images, seed: jax.Array, learning_rate: jax.Array
) -> Accuracies:
    """After training, with the running average of the statistics throughout."""
    state, _ = advance(task, images, begin(task, images, seed, learning_rate), steps)

    def noise(x: jax.Array, label: jax.Array, key: jax.Array) -> jax.Array:
        return x + NOISE * jax.random.normal(key, x.shape)

    def fast_gradient_sign(x: jax.Array, label: jax.Array, key: jax.Array) -> jax.Array:
        def loss(x: jax.Array) -> jax.Array:
            return cross_entropy(infer(task, state, x[None])[0], label[None])

        return x + PERTURBATION * jnp.sign(jax.grad(loss)(x))

    on = partial(accuracy, task, images, state)
    return Accuracies(on(), on(noise), on(fast_gradient_sign))


def measure(setting: Setting) -> Outcome:
    """Accuracy with batch norm less without: clean, with noise, under attack."""
    seeds = setting.seeds(full=8, quick=3)
    images = unit_interval(setting.mnist)
    rates = np.full(len(seeds), 0.1, np.float32)

    tasks = {name: relu_task(3, norm, width=128) for name, norm in NORMS.items()}
    runs = {name: partial(accuracies, t, setting.pick(2500, 600)) for name, t in tasks.items()}
    found = spread_each(runs, seeds, rates, given=(images,))
    without, with_norm = found.values()
    gained = Accuracies(*(b - a for a, b in zip(without, with_norm)))
    worse = -0.05 if setting.quick else -0.1
    checks = [
        Check("accuracy gained, clean", gained.clean, at_least(-0.006), "regression"),
        Check("accuracy gained, with noise", gained.noise, at_most(worse), "published"),
        Check("accuracy gained, under attack", gained.adversarial, at_most(worse), "published"),
    ]
    plot = Plot(
        "Accuracy of the same networks",
        "",
        "test accuracy",
        [Line(name, range(3), np.stack(seen, axis=1)) for name, seen in found.items()],
        categories=("clean", "noise", "attack"),
    )
    return Outcome(checks, [plot])


ROBUSTNESS = Claim(
    name="galloway-robustness",
    sentence="Batch norm costs ten percent of accuracy and more under noise and attack, and none "
    "on clean images.",
    citation="Galloway, Golubeva, Tanay, Moussa & Taylor 2019, Batch Normalization is a Cause of "
    "Adversarial Vulnerability, arXiv:1905.02161, abstract",
    setup="MNIST with pixels from 0 to 1, 3 hidden layers of 128 ReLU, He initialisation, SGD with "
    "learning rate 0.1, batch size 128, 2500 steps, 8 seeds; running average of the statistics in "
    "test and attack. Nothing is clipped to the range of pixels.",
    formula="noise: x + N(0, 0.5²); attack: x + 0.05 sign(dL/dx), the fast gradient sign method. "
    "The paper says double-digit percentages, of other networks.",
    measure=measure,
    needs_mnist=True,
)
