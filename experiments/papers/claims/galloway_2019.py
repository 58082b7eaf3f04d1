"""Galloway et al. 2019: batch norm makes networks easier to mislead, by noise and on purpose."""

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
    Setting,
    at_least,
    at_most,
    once,
)
from experiments.papers.tools.mlp import cross_entropy
from experiments.papers.tools.spread import spread
from experiments.papers.tools.stand_ins import stand_ins
from experiments.papers.tools.training import (
    Images,
    State,
    Task,
    accuracy,
    advance,
    begin,
    infer,
    relu_task,
    unit_interval,
    with_population_stats,
)
from jbn import Standard

NOISE = 0.5
PERTURBATION = 0.05
_LEARNING_RATE = 0.1
_DECAY = 1e-3
_WINDOW = 50  # steps over which the training loss is averaged
_TEST = 5000
_KINDS = ("clean", "noise", "attack")


class Accuracies(NamedTuple):
    """On the test set, as it is and changed."""

    clean: jax.Array
    noise: jax.Array
    adversarial: jax.Array


class Trained(NamedTuple):
    """One network at two times of its training."""

    last: Accuracies
    """After the last step."""
    matched: Accuracies
    """When its training loss first came down to the target; NaN if it did not."""


def with_noise(x: jax.Array, key: jax.Array) -> jax.Array:
    """Gaussian noise, then pixels from 0 to 1 again."""
    return jnp.clip(x + NOISE * jax.random.normal(key, x.shape), 0, 1)


def fast_gradient_sign(x: jax.Array, gradient: jax.Array) -> jax.Array:
    """A step that raises the loss, then pixels from 0 to 1 again."""
    return jnp.clip(x + PERTURBATION * jnp.sign(gradient), 0, 1)


def accuracies(task: Task, images: Images, state: State) -> Accuracies:
    """With the population's statistics, in the attack too."""
    state = with_population_stats(task, images, state)

    def attack(x: jax.Array, label: jax.Array, key: jax.Array) -> jax.Array:
        def loss(x: jax.Array) -> jax.Array:
            return cross_entropy(infer(task, state, x[None])[0], label[None])

        return fast_gradient_sign(x, jax.grad(loss)(x))

    on = partial(accuracy, task, images, state)
    return Accuracies(on(), on(lambda x, label, key: with_noise(x, key)), on(attack))


def train(
    task: Task,
    windows: int,
    target: float,
    images: Images,
    seed: jax.Array,
    learning_rate: jax.Array,
) -> tuple[State, State, jax.Array]:
    """The network at the end, when its training loss first reached `target`, and whether it did."""

    def window(
        carry: tuple[State, State, jax.Array], _: None
    ) -> tuple[tuple[State, State, jax.Array], None]:
        state, matched, reached = carry
        state, losses = advance(task, images, state, _WINDOW)
        matched = jax.tree.map(lambda kept, new: jnp.where(reached, kept, new), matched, state)
        return (state, matched, reached | (jnp.mean(losses) <= target)), None

    start = begin(task, images, seed, learning_rate)
    return jax.lax.scan(window, (start, start, jnp.bool_(False)), length=windows)[0]


def trained(task: Task, windows: int, target: float, images: Images, *row: jax.Array) -> Trained:
    """A run, looked at where it ends and where its training loss reaches `target`."""
    state, matched, reached = train(task, windows, target, images, *row)
    # One after the other: compiled once.
    both = jax.tree.map(lambda *states: jnp.stack(states), state, matched)
    found = jax.lax.map(partial(accuracies, task, images), both)
    last, found = (jax.tree.map(lambda a, i=i: a[i], found) for i in range(2))
    return Trained(last, jax.tree.map(lambda value: jnp.where(reached, value, jnp.nan), found))


@once
def _trained(setting: Setting, norm: Any, decay: float = 0.0) -> Trained:
    images = unit_interval(setting.mnist)
    images = images._replace(test=images.test[:_TEST], test_labels=images.test_labels[:_TEST])
    task = relu_task(3, norm, width=128, weight_decay=decay)
    run = partial(trained, task, _steps(setting) // _WINDOW, _target(setting))
    seeds = _seeds(setting)
    return spread(run, seeds, np.full(len(seeds), _LEARNING_RATE, np.float32), given=(images,))


def _seeds(setting: Setting) -> np.ndarray:
    return setting.seeds(full=6, quick=3)


def _steps(setting: Setting) -> int:
    return setting.pick(2000, 500)


def _target(setting: Setting) -> float:
    return 0.4 if setting.quick else 0.2


def measure(setting: Setting, norm: Any = Standard()) -> Outcome:
    """Accuracy with batch norm less without: clean, with noise, under attack."""
    arms = {
        "no norm": _trained(setting, None),
        "batch norm": _trained(setting, norm),
        "no norm, weight decay": _trained(setting, None, _DECAY),
    }
    without, with_norm, decayed = arms.values()
    worse = at_most(-0.05 if setting.quick else -0.1)

    def against(other: Accuracies, mine: Accuracies, told: str) -> list[Check]:
        noise, attack = mine.noise - other.noise, mine.adversarial - other.adversarial
        return [
            Check(f"{told}: accuracy gained, with noise", noise, worse, "published"),
            Check(f"{told}: accuracy gained, under attack", attack, worse, "published"),
        ]

    steps, target = _steps(setting), _target(setting)
    checks = [
        Check(
            f"after {steps} steps: accuracy gained, clean",
            with_norm.last.clean - without.last.clean,
            at_least(-0.006),
            "regression",
        ),
        *against(without.last, with_norm.last, f"after {steps} steps"),
        *against(without.matched, with_norm.matched, f"at training loss {target}"),
        *against(decayed.last, with_norm.last, f"after {steps} steps, over weight decay"),
    ]
    plots = [
        Plot(
            title,
            "",
            "test accuracy",
            [
                Line(name, range(len(_KINDS)), np.stack(getattr(arm, when), axis=1))
                for name, arm in arms.items()
            ],
            categories=_KINDS,
        )
        for when, title in (
            ("last", f"After {steps} steps"),
            ("matched", f"At training loss {target}"),
        )
    ]
    return Outcome(checks, plots)


def _setup(setting: Setting) -> str:
    return (
        "MNIST with pixels from 0 to 1, 3 hidden layers of 128 ReLU, He initialisation, SGD with "
        f"learning rate {_LEARNING_RATE}, batch size 128, {_steps(setting)} steps, "
        f"{len(_seeds(setting))} seeds; without norm also with a decay of {_DECAY:g} of all "
        f"kernels. Accuracy on {_TEST} test images with the population's statistics, after the "
        f"last step and when the mean training loss of {_WINDOW} steps first comes down to "
        f"{_target(setting)}. What is changed is clipped to pixels from 0 to 1."
    )


ROBUSTNESS = Claim(
    name="galloway-robustness",
    sentence="Batch norm costs ten percent of accuracy and more under noise and attack, and none "
    "on clean images.",
    citation="Galloway, Golubeva, Tanay, Moussa & Taylor 2019, Batch Normalization is a Cause of "
    "Adversarial Vulnerability, arXiv:1905.02161, abstract",
    setup=_setup,
    formula=f"noise: x + N(0, {NOISE:g}²); attack: x + {PERTURBATION:g} sign(dL/dx), the fast "
    "gradient sign method; both sizes are choices made here. The paper says double-digit "
    "percentages, of other networks, and that weight decay in batch norm's place does without them",
    measure=measure,
    needs_mnist=True,
    registered="2026-11-22",
    changes=(
        "2026-11-28: pixels are clipped to their range; the population's statistics, and not the "
        "running average, which is of other weights where training is short; 2000 steps, 2500 "
        "before. New, in the same range: at equal training loss, and over weight decay.",
    ),
    stand_ins=stand_ins(measure, must_fail=("no norm",)),
)
