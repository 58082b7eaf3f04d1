"""The rate of explosion of any nonlinearity, from theory."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from experiments.papers.claims.yang_2019 import linear_rate, relu_rate
from experiments.papers.claims.yang_activations import rate


@pytest.mark.parametrize("batch_size", [8, 128])
def test_the_rates_that_have_a_formula(batch_size):
    assert rate(lambda z: 3 * z, batch_size) == pytest.approx(linear_rate(batch_size), rel=1e-10)
    assert rate(jax.nn.relu, batch_size) == pytest.approx(relu_rate(batch_size), rel=1e-3)


def test_the_limits_of_large_batches():
    # Var[sin z] = (1 - e^-2)/2, E[cos² z] = (1 + e^-2)/2.
    assert rate(jnp.sin, 1500) == pytest.approx(1 / np.tanh(1), rel=3e-3)
    assert rate(jax.nn.relu, 1500) == pytest.approx(np.pi / (np.pi - 1), rel=3e-3)


def test_a_rate_is_that_of_the_jacobian():
    b, draws = 8, 100_000
    z = np.random.default_rng(0).normal(size=(draws, b))
    z -= z.mean(axis=1, keepdims=True)
    squares = np.square(z).sum(axis=1)
    y = z * np.sqrt(b / squares)[:, None]
    phi, slope = np.tanh(y), 1 - np.tanh(y) ** 2
    centring = np.eye(b) - 1 / b
    # d phi(y_i)/d z_j for standard normal z, then scaled to the variance that phi gives.
    jacobian = centring - y[:, :, None] * y[:, None, :] / b
    jacobian = centring @ (slope[:, :, None] * jacobian) * np.sqrt(b / squares)[:, None, None]
    variance = phi.var(axis=1, ddof=1).mean()
    expected = np.square(jacobian).sum(axis=(1, 2)).mean() / (b - 1) / variance
    assert rate(jnp.tanh, b) == pytest.approx(expected, rel=0.02)
