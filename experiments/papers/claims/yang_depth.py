"""Yang et al. 2019: gradients that explode through batch norm end what depth can be trained."""

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
    between,
)
from experiments.papers.claims.yang_2019 import CITATION, relu_rate
from experiments.papers.tools.mlp import cross_entropy
from experiments.papers.tools.spread import spread_each
from experiments.study.data import Data
from jbn import Affine, batch_norm, init

_WIDTH = 100
_CLASSES = 10
_BATCH_SIZE = 128
_LEARNING_RATE = 0.1
_EPSILON = 1e-3
_LAST = 50


class _Params(NamedTuple):
    first: jax.Array
    kernels: jax.Array
    """`(depth - 1, width, width)`."""
    affine: Affine
    """`(depth, width)`."""
    output: jax.Array


def _initial(depth: int, pixels: int, key: jax.Array) -> _Params:
    he = jax.nn.initializers.he_normal()
    keys = jax.random.split(key, depth + 1)
    affine, _ = init(_WIDTH)
    return _Params(
        he(keys[0], (pixels, _WIDTH)),
        jax.vmap(lambda k: he(k, (_WIDTH, _WIDTH)))(keys[1:-1]),
        jax.tree.map(lambda a: jnp.tile(a, (depth, 1)), affine),
        he(keys[-1], (_WIDTH, _CLASSES)),
    )


def _scores(params: _Params, x: jax.Array) -> jax.Array:
    def hidden(z: jax.Array, affine: Affine) -> jax.Array:
        y, _ = batch_norm(z, affine, init(_WIDTH)[1], epsilon=_EPSILON)
        return jax.nn.relu(y)

    def layer(h: jax.Array, inputs: tuple[jax.Array, Affine]) -> tuple[jax.Array, None]:
        kernel, affine = inputs
        return hidden(h @ kernel, affine), None

    first = jax.tree.map(lambda a: a[0], params.affine)
    rest = jax.tree.map(lambda a: a[1:], params.affine)
    h, _ = jax.lax.scan(layer, hidden(x @ params.first, first), (params.kernels, rest))
    return h @ params.output


def train(
    depth: int, steps: int, images: jax.Array, labels: jax.Array, seed: jax.Array
) -> jax.Array:
    """Accuracy on each batch of SGD, with the batch's own statistics."""
    weights_key, batches_key = jax.random.split(jax.random.key(seed))

    def loss(params: _Params, x: jax.Array, targets: jax.Array) -> tuple[jax.Array, jax.Array]:
        scores = _scores(params, x)
        accuracy = jnp.mean(jnp.argmax(scores, axis=1) == targets)
        return cross_entropy(scores, targets), accuracy

    def step(params: _Params, t: jax.Array) -> tuple[Any, jax.Array]:
        key = jax.random.fold_in(batches_key, t)
        chosen = jax.random.randint(key, (_BATCH_SIZE,), 0, images.shape[0])
        gradient, accuracy = jax.grad(loss, has_aux=True)(params, images[chosen], labels[chosen])
        return jax.tree.map(lambda p, g: p - _LEARNING_RATE * g, params, gradient), accuracy

    params = _initial(depth, images.shape[1], weights_key)
    return jax.lax.scan(step, params, jnp.arange(steps))[1]


def measure(setting: Setting) -> Outcome:
    """Accuracy in the last 50 steps at each depth."""
    images, labels = standardised(setting.mnist)
    seeds = setting.seeds(full=4, quick=4)
    steps = setting.pick(full=300, quick=100)
    allowed = {
        10: at_least(0.8),
        20: at_least(0.8),
        40: between(0.2, 0.7),
        80: at_most(0.2),
    }
    depths = (10, 80) if setting.quick else tuple(allowed)
    runs = {depth: partial(train, depth, steps) for depth in depths}
    accuracies = spread_each(runs, seeds, given=[images, labels])
    ends = {depth: seen[:, -_LAST:].mean(axis=1) for depth, seen in accuracies.items()}
    checks = [
        Check(
            f"{depth} layers: accuracy on the batch, mean over the last {_LAST} of {steps} steps",
            end,
            allowed[depth],
            "regression",
        )
        for depth, end in ends.items()
    ]
    reach = 16 / np.log(relu_rate(_BATCH_SIZE))
    windows = np.arange(_LAST, steps + 1, _LAST)
    plots = [
        Plot(
            f"16 xi = {reach:.0f} layers",
            "layers",
            "accuracy at the end",
            [Line("measured", depths, np.stack([*ends.values()], axis=1))],
        ),
        Plot(
            "While training",
            "step",
            "accuracy",
            [
                Line(f"{d} layers", windows, a.reshape(len(a), -1, _LAST).mean(axis=2))
                for d, a in accuracies.items()
            ],
        ),
    ]
    remarks = ["At 60 layers, between the two, some seeds stay at chance and some do not."]
    return Outcome(checks, plots, remarks)


def standardised(data: Data) -> tuple[np.ndarray, np.ndarray]:
    """Training images `(N, pixels)` with mean 0 and standard deviation 1 over all, and labels."""
    x = data.train_images.astype(np.float32) / np.float32(data.brightest)
    return (x - x.mean()) / x.std(), data.train_labels


DEPTH = Claim(
    name="yang-depth",
    sentence="Networks with batch norm and ReLU train to about 40 layers deep, 16 times the depth "
    "over which their gradients grow by e, and not beyond.",
    citation=f"{CITATION}, figure 2 (width 384, ten epochs)",
    setup="MNIST, standardised; width 100, He initialisation, epsilon 1e-3, 300 steps of SGD at "
    "learning rate 0.1, batch size 128; 4 seeds.",
    formula="trainable depth about 16 xi, xi = 1/log(rate), with the rate of |dL/dz|² per layer "
    "(claim yang-gradients)",
    measure=measure,
    needs_mnist=True,
)
