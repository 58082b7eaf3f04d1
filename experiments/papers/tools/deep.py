"""Gradients through a deep random network, at every layer in one pass."""

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

NO_EPSILON = 1e-30  # theory has none, and a float32 variance never needs this one

Layer = Callable[[jax.Array, jax.Array, jax.Array], jax.Array]
"""(h, key, added) -> h of the next layer, from `added` plus the weights' product."""


class Signals(NamedTuple):
    """Of each layer: `(depth, examples, width)`."""

    h: jax.Array
    """What goes in."""
    gradient: jax.Array
    """Of the loss with respect to z = h W."""


def signals(layer: Layer, depth: int, x: jax.Array, key: jax.Array) -> Signals:
    """`x` through `depth` random layers, and a random gradient of the output back.

    A deeper network with the same key begins with the same layers.
    """
    cotangent_key, weights_key = jax.random.split(key)
    cotangent = jax.random.normal(cotangent_key, x.shape)
    keys = jax.vmap(partial(jax.random.fold_in, weights_key))(jnp.arange(depth))

    def loss(added: jax.Array) -> tuple[jax.Array, jax.Array]:
        def step(h: jax.Array, inputs: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, jax.Array]:
            return layer(h, *inputs), h

        out, h = jax.lax.scan(step, x, (keys, added))
        return jnp.vdot(cotangent, out), h

    # The gradient at zeros added to every z is that at z.
    gradient, h = jax.grad(loss, has_aux=True)(jnp.zeros((depth, *x.shape)))
    return Signals(h, gradient)


def log_square(arrays: jax.Array) -> jax.Array:
    """Logarithm of the squared norm of each."""
    return jnp.log(jnp.sum(jnp.square(arrays), axis=tuple(range(1, arrays.ndim))))


def factor_per_layer(logs: np.ndarray, fitted: slice) -> np.ndarray:
    """By how much a squared norm grows per layer towards the input: logs `(seeds, depth)`."""
    layers = np.arange(logs.shape[1])
    return np.exp(-np.polyfit(layers[fitted], logs.T[fitted], 1)[0])
