"""Theory against its limits and Monte Carlo, and what is measured against brute force."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from experiments.papers.claim import Setting
from experiments.papers.claims import yang_2019
from jbn import batch_norm, init


def test_rates_in_large_batches():
    np.testing.assert_allclose(yang_2019.relu_rate(10**6), np.pi / (np.pi - 1), rtol=1e-5)
    np.testing.assert_allclose(yang_2019.relu_cosine(10**6), 1 / np.pi, rtol=1e-5)
    np.testing.assert_allclose(yang_2019.linear_rate(10**6), 1, rtol=1e-5)


def test_the_cosine_is_that_of_two_rectified_normals():
    c = -1 / 7
    rng = np.random.default_rng(0)
    x = rng.multivariate_normal([0, 0], [[1, c], [c, 1]], size=400_000)
    h = np.maximum(x, 0)
    cosine = (h[:, 0] * h[:, 1]).mean() / (h**2).mean()
    np.testing.assert_allclose(yang_2019.relu_cosine(8), cosine, atol=0.003)


def test_the_gradient_is_that_of_each_layers_input(monkeypatch):
    """Of the last layer it can be had by itself."""
    monkeypatch.setattr(yang_2019, "DEPTH", 3)
    seed, batch_size, width = jnp.uint32(3), 8, 16
    logs = yang_2019.deep_pass(jax.nn.relu, batch_size, width, seed)
    key = jax.random.key(seed)
    h, cotangent = jax.random.normal(key, (2, batch_size, width))

    def activations(z):
        return jax.nn.relu(batch_norm(z, *init(width), epsilon=1e-30)[0])

    first, second, third = (
        jax.random.normal(key, (width, width)) / 4
        for key in jax.random.split(jax.random.fold_in(key, 1), 3)
    )
    z = activations(activations(h @ first) @ second) @ third
    (dz,) = jax.vjp(activations, z)[1](cotangent)
    np.testing.assert_allclose(logs[-1], jnp.log(jnp.sum(dz**2)), rtol=1e-4)


@pytest.mark.parametrize("quick", [True, False])
def test_a_tolerance_is_narrower_than_its_effect(quick, monkeypatch):
    def without_growth(runs, seeds):
        return {name: np.zeros((len(seeds), 30)) for name in runs}

    monkeypatch.setattr(yang_2019, "spread_each", without_growth)
    outcome = yang_2019.measure(Setting(quick))
    assert {check.verdict for check in outcome.checks} == {"refuted"}
