"""Lyu et al. 2022: decay takes gradient descent on scale-free weights to the edge of stability.

Decay shortens the weights until the loss is as sharp as the learning rate bears; there the
sharpness of the function, which the length of the weights has no say in, is brought down.
"""

import itertools
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
    StandIn,
    at_least,
    at_most,
    near,
    once,
)
from experiments.papers.tools.digits import NUM_PIXELS, Images, digits
from experiments.papers.tools.mlp import NUM_CLASSES, cross_entropy
from experiments.papers.tools.spread import combinations, spread
from experiments.papers.tools.stand_ins import BATCH_NORM, as_layer, stand_ins
from experiments.study.train import key_of
from jbn.diagnostics import hessian_eigenvalues

_WIDTHS = (NUM_PIXELS, 32, 32, NUM_CLASSES)
_EXAMPLES = 128
_RATE = 0.1
_ITERATIONS = 16  # products with the Hessian for its largest eigenvalue
_BETWEEN = 50  # steps between two looks

_WEIGHTS, _START = range(2)

Kernels = tuple[jax.Array, ...]


class Course(NamedTuple):
    """Every 50 steps."""

    to_edge: jax.Array
    """lambda_1 eta / 2: 1 at the edge of stability."""
    scale_free: jax.Array
    """lambda_1 |w|², the sharpness of the function on the unit sphere."""
    loss: jax.Array


def initial(seed: jax.Array) -> Kernels:
    """Draws He's kernels, `(inputs, units)`."""
    he = jax.nn.initializers.he_normal()
    shapes = itertools.pairwise(_WIDTHS)
    return tuple(he(key_of(seed, _WEIGHTS, i), shape) for i, shape in enumerate(shapes))


def loss(norm: Any, kernels: Kernels, images: Images) -> jax.Array:
    """Mean cross-entropy of a network with a norm after every kernel, the last too.

    There is no other parameter, so that the scale of no weight matters where the norm undoes it.
    """
    *hidden, last = kernels
    layer = as_layer(norm, jax.nn.relu, 1e-6, trained=True)
    h = jnp.asarray(images.x)
    for kernel in hidden:
        h = jax.nn.relu(layer(h, kernel))
    return cross_entropy(layer(h, last), images.labels)


def descend(
    norm: Any, looks: int, images: Images, seed: jax.Array, weight_decay: jax.Array
) -> Course:
    """Full-batch gradient descent, w <- (1 - eta lambda) w - eta dL/dw."""
    loss_fn = partial(loss, norm, images=images)
    kernels_loss = lambda kernels: loss_fn(kernels)  # noqa: E731

    def one(kernels: Kernels, _: None) -> tuple[Kernels, None]:
        gradient = jax.grad(kernels_loss)(kernels)
        shrink = 1 - _RATE * weight_decay
        return jax.tree.map(lambda w, g: shrink * w - _RATE * g, kernels, gradient), None

    def look(kernels: Kernels, t: jax.Array) -> tuple[Kernels, Course]:
        key = key_of(seed, _START, t)
        found = hessian_eigenvalues(kernels_loss, kernels, key, iterations=_ITERATIONS)
        sharpness = found.values[0]
        square = jnp.sum(jnp.stack([jnp.sum(jnp.square(w)) for w in kernels]))
        course = Course(_RATE * sharpness / 2, sharpness * square, kernels_loss(kernels))
        return jax.lax.scan(one, kernels, length=_BETWEEN)[0], course

    return jax.lax.scan(look, initial(seed), jnp.arange(looks))[1]


def _decays(setting: Setting) -> np.ndarray:
    return np.array([0.02] if setting.quick else [0.02, 0.01], np.float32)


def _looks(setting: Setting) -> int:
    return setting.pick(50, 24)


def _seeds(setting: Setting) -> np.ndarray:
    return setting.seeds(full=4, quick=3)


@once
def _courses(setting: Setting, norm: Any) -> dict[float, Course]:
    """By decay, 0 too."""
    seeds, decays = _seeds(setting), np.array([*_decays(setting), 0], np.float32)
    run = partial(descend, norm, _looks(setting))
    found = spread(run, *combinations(seeds, decays), given=(digits(_EXAMPLES),))
    shaped = jax.tree.map(lambda x: x.reshape(len(seeds), len(decays), -1), found)
    return {
        decay.item(): jax.tree.map(lambda x, i=i: x[:, i], shaped) for i, decay in enumerate(decays)
    }


def settled(course: Course) -> np.ndarray:
    """lambda_1 eta/2, median over the last half of the steps: `(seeds,)`.

    Not the largest: that is the height of a spike, by which the network leaves the edge again.
    """
    to_edge = np.asarray(course.to_edge)
    return np.median(to_edge[:, to_edge.shape[1] // 2 :], axis=1)


def falls(course: Course) -> np.ndarray:
    """Powers of ten by which the scale-free sharpness falls once it is at the edge: `(seeds,)`.

    From where lambda_1 eta/2 is first 1 to the median of the last quarter; NaN if it never is.
    """
    to_edge, sharpness = np.asarray(course.to_edge), np.asarray(course.scale_free)
    there = to_edge >= 1
    first = np.argmax(there, axis=1)
    end = np.median(sharpness[:, -(sharpness.shape[1] // 4) :], axis=1)
    fallen = np.log10(sharpness[np.arange(len(first)), first] / end)
    return np.where(there.any(axis=1), fallen, np.nan)


def measure(setting: Setting, norm: Any = BATCH_NORM, *, decayed: bool = True) -> Outcome:
    """How near the sharpness comes to the edge, and how far that of the function falls there."""
    courses = _courses(setting, norm)
    still = courses[0.0]
    checks = []
    for decay in _decays(setting):
        course = courses[decay.item()] if decayed else still
        said = f"decay {decay:.2g}"
        checks += [
            Check(
                f"{said}: lambda_1 eta/2, last half of the steps",
                settled(course),
                near(1.0, absolute=0.3),
                "theory",
            ),
            Check(
                f"{said}: lambda_1 |w|², powers of ten down from the edge to the end",
                falls(course),
                at_least(0.1),
                "published",
            ),
        ]
    checks.append(
        Check(
            "no decay: lambda_1 eta/2, last half of the steps",
            settled(still),
            at_most(0.7),
            "regression",
            control=True,
        )
    )
    steps = _BETWEEN * np.arange(_looks(setting))
    names = {decay: f"decay {decay:.2g}" if decay else "no decay" for decay in courses}
    # One seed: others are at another place of the same saw.
    edge = [Line(names[d], steps, c.to_edge[0]) for d, c in courses.items()]
    plots = [
        Plot(
            "Distance to the edge of stability",
            "step",
            "lambda_1 eta/2",
            [*edge, Line("edge", steps, np.ones(len(steps)), expected=True)],
        ),
        Plot(
            "Sharpness of the function",
            "step",
            "lambda_1 |w|²",
            [Line(names[d], steps, c.scale_free) for d, c in courses.items()],
            log="y",
        ),
    ]
    remark = (
        "Without a norm gradient descent comes to the edge too, by sharpening (Cohen et al. 2021, "
        "arXiv:2103.00065): the stand-ins say which norms do. With one, it is decay that leads "
        "there."
    )
    return Outcome(checks, plots, [remark])


def _setup(setting: Setting) -> str:
    decays = " or ".join(f"{decay:.2g}" for decay in _decays(setting))
    return (
        f"{_EXAMPLES} digits, {'-'.join(map(str, _WIDTHS))} ReLU with batch norm after every "
        "kernel, the last too, no gamma, beta or bias; He initialisation, full-batch gradient "
        f"descent, learning rate {_RATE:g}, decay {decays} on all weights, "
        f"{_BETWEEN * _looks(setting)} steps, {len(_seeds(setting))} seeds. Largest eigenvalue of "
        f"the Hessian by {_ITERATIONS} Lanczos iterations every {_BETWEEN} steps."
    )


EDGE = Claim(
    name="lyu-edge",
    sentence="With weight decay, gradient descent takes a network with batch norm to the edge of "
    "stability, where the sharpness of its function falls.",
    citation="Lyu, Li & Arora 2022, Understanding the Generalization Benefit of Normalization "
    "Layers: Sharpness Reduction, NeurIPS, arXiv:2206.07085, section 4",
    setup=_setup,
    formula="lambda_1 = 2/eta at the edge, lambda_1 the largest eigenvalue of the Hessian, eta the "
    "learning rate; lambda_1 |w|² is the same at any length of the weights",
    measure=measure,
    registered="2026-11-28",
    changes=(
        "2026-11-28: with a learning rate of 0.5 a network begins near the edge and stays there "
        "without decay; now 0.1. The largest lambda_1 eta/2 was the height of a spike, 4.9; now "
        "the median of the last half. The fall is counted from the edge, not from the largest "
        "value, which is the initial one. The ranges stand.",
    ),
    stand_ins=[
        *stand_ins(measure),
        StandIn("no decay", partial(measure, decayed=False), must_fail=True),
    ],
)
