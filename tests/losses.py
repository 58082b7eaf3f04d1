"""Losses whose curvature is known: a quadratic of any spectrum, and a small network."""

import jax
import jax.numpy as jnp
import numpy as np
from jax.flatten_util import ravel_pytree

# A quadratic loss in hiding: any spectrum, in a basis of no special directions.
BASIS = np.linalg.qr(np.random.default_rng(0).normal(size=(12, 12)))[0]
SPECTRUM = np.array([9.0, 4.0, 4.0, 3.0, 1.0, 0.5, 0.1, 0.0, -0.2, -1.0, -2.0, -12.0])


def quadratic(spectrum=SPECTRUM, dtype=jnp.float32):
    matrix = jnp.asarray((BASIS * spectrum) @ BASIS.T, dtype)

    def loss_fn(params):
        w = ravel_pytree(params)[0]
        return w @ matrix @ w / 2

    params = {"a": jnp.linspace(0, 1, 8, dtype=dtype).reshape(2, 4), "b": jnp.ones(4, dtype)}
    return loss_fn, params


def network(dtype=jnp.float32):
    """A loss that is no quadratic, of 3 x 3 + 3 + 3 parameters."""
    x = jax.random.normal(jax.random.key(0), (6, 3), dtype)
    params = {
        "layer_1": {"kernel": jax.random.normal(jax.random.key(1), (3, 3), dtype)},
        "layer_10": {"kernel": jax.random.normal(jax.random.key(2), (3, 3), dtype)},
        "layer_2": {"kernel": jax.random.normal(jax.random.key(3), (3, 1), dtype)},
        "shift": jnp.ones(3, dtype),
    }

    def loss_fn(params):
        h = jnp.tanh(x @ params["layer_1"]["kernel"] + params["shift"][None])
        h = jnp.tanh(h @ params["layer_2"]["kernel"] @ jnp.ones((1, 3), dtype))
        return jnp.mean(jnp.square(h @ params["layer_10"]["kernel"] - 1))

    return loss_fn, params


KEY = jax.random.key(7)
