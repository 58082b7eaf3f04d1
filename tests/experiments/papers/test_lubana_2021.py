"""Angles between examples and the power of the batch's mean, against NumPy."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from experiments.papers.claims.lubana_2021 import (
    cosine_map,
    cosines,
    deep_pass,
    mean_cosine,
    mean_power,
    without_norm,
)
from experiments.papers.tools.stand_ins import as_function
from jbn import Standard

H = np.random.default_rng(0).normal(0.5, 1.0, (5, 7)).astype(np.float32)


def test_the_measures():
    pairs = [
        H[i] @ H[j] / np.linalg.norm(H[i]) / np.linalg.norm(H[j])
        for i in range(5)
        for j in range(i)
    ]
    assert mean_cosine(jnp.asarray(H)) == pytest.approx(np.mean(pairs), rel=1e-5)
    assert np.asarray(cosines(H))[np.tril_indices(5, -1)].mean() == pytest.approx(np.mean(pairs))
    power = (H.mean(axis=0) ** 2).sum() / (H**2).mean(axis=0).sum()
    assert mean_power(jnp.asarray(H)) == pytest.approx(power, rel=1e-5)
    assert mean_power(jnp.ones((4, 3))) == pytest.approx(1)


def test_the_map_is_that_of_rectified_normals():
    c = 0.3
    x = np.random.default_rng(0).multivariate_normal([0, 0], [[1, c], [c, 1]], size=400_000)
    h = np.maximum(x, 0)
    found = (h[:, 0] * h[:, 1]).mean() / (h**2).mean()
    assert cosine_map(c) == pytest.approx(found, abs=0.003)
    np.testing.assert_allclose(without_norm(c, 2), [cosine_map(c), cosine_map(cosine_map(c))])
    assert without_norm(0.0, 200)[-1] > 0.99


def test_a_pass_normalises_before_the_activation():
    x = jnp.asarray(H)
    seen = jax.jit(lambda x: deep_pass(Standard(), 16, x, 3))(x)
    h = jnp.asarray(H)
    for i, key in enumerate(jax.random.split(jax.random.key(3), 50)[:2]):
        kernel = jax.random.normal(key, (16, 16))[: h.shape[1]] * np.sqrt(2 / h.shape[1])
        h = jax.nn.relu(as_function(Standard())(h @ kernel))
        assert seen.cosine[i] == pytest.approx(float(mean_cosine(h)), rel=1e-3)
        assert seen.power[i] == pytest.approx(float(mean_power(h)), rel=1e-3)
    assert seen.cosine.shape == (50,)
