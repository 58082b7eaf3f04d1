"""Orthogonal weights under batch norm, and where they help."""

from functools import partial

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from experiments.papers.claims.meterez_2024 import deep_pass, gaussian_rate
from experiments.papers.tools.deep import factor_per_layer, signals
from experiments.papers.tools.spread import spread


def test_signals_are_the_gradients_at_each_layer():
    def layer(h, key, added):
        return jnp.tanh(h @ jax.random.normal(key, (5, 5)) + added)

    x = jax.random.normal(jax.random.key(0), (3, 5))
    two, three = (signals(layer, depth, x, jax.random.key(1)) for depth in (2, 3))
    chex.assert_trees_all_close(two.h, three.h[:2])  # the same layers
    np.testing.assert_allclose(two.h[0], x)
    # dL/dz of the first layer, from that of the second: through its weights and tanh'.
    h, back = jax.vjp(lambda added: layer(x, _key(0), added), jnp.zeros((3, 5)))
    np.testing.assert_allclose(two.h[1], h, rtol=1e-5)
    second = jax.vjp(lambda h: h @ jax.random.normal(_key(1), (5, 5)), h)[1]
    np.testing.assert_allclose(
        two.gradient[0], back(second(two.gradient[1])[0])[0], rtol=1e-4, atol=1e-5
    )


def _key(i: int) -> jax.Array:
    return jax.random.fold_in(jax.random.split(jax.random.key(1))[1], i)


def test_the_factor_counts_towards_the_input():
    logs = np.log(1.5) * -np.arange(10.0)[None]
    np.testing.assert_allclose(factor_per_layer(logs, slice(2, 8)), [1.5])


def test_few_examples_explode_as_with_gaussian_weights():
    assert gaussian_rate(100) == pytest.approx(1.0102, rel=1e-4)

    def factor(batch_size: int) -> float:
        seen = spread(
            partial(deep_pass, True, False, batch_size, 60), np.arange(8, dtype=np.uint32)
        )
        return factor_per_layer(seen.gradient, slice(10, 55)).mean()

    assert factor(8) > 1.07
    assert factor(32) < 1.05
