"""Derivatives through random layers with statistics as constants, against NumPy."""

import jax
import numpy as np
import pytest

from experiments.papers.claims.than_2025 import RELU_RATE, at_init, factor, lipschitz
from experiments.papers.claims.yang_2019 import relu_rate
from experiments.papers.tools.digits import Images
from jbn import Standard


def _by_hand(x, seed, batch_norm):
    first, rest = jax.random.split(jax.random.key(seed))
    keys = [first, *jax.random.split(rest, 19)]
    h = x.astype(np.float64)
    jacobians = [np.eye(x.shape[1]) for _ in range(8)]
    found = []
    for key in keys:
        n = h.shape[1]
        kernel = np.asarray(jax.random.normal(key, (n, 100)) * np.sqrt(2 / n), np.float64)
        z = h @ kernel
        scale = 1 / z.std(axis=0) if batch_norm else np.ones(100)
        y = (z - z.mean(axis=0)) * scale if batch_norm else z
        h = np.maximum(y, 0)
        jacobians = [j @ (kernel * scale * (y[i] > 0)) for i, j in enumerate(jacobians)]
        found.append(np.mean([np.linalg.norm(j, 2) for j in jacobians]))
    return np.array(found)


@pytest.mark.parametrize("norm", [None, Standard()])
def test_the_lipschitz_constant_of_every_layer(norm):
    x = np.random.default_rng(0).normal(size=(32, 12)).astype(np.float32)
    images = Images(x, np.zeros(32))
    seen = lipschitz(np.asarray(jax.jit(lambda images: at_init(norm, images, 5))(images)))
    np.testing.assert_allclose(seen, _by_hand(x, 5, norm is not None), rtol=1e-3)


def test_the_factor_per_layer():
    layers = np.arange(20)
    without = np.array([[2.0], [3.0]]) * 1.1**layers
    np.testing.assert_allclose(factor(without * 1.2**layers, without), 1.2)
    assert pytest.approx(relu_rate(10**6), rel=1e-4) == RELU_RATE**2
