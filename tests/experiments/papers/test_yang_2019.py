"""Theory against its limits and Monte Carlo, and what is measured against brute force."""

import jax
import jax.numpy as jnp
import numpy as np

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


def test_the_gradient_is_that_of_each_layers_input():
    """Of the last layer it can be had by itself."""
    seed, batch_size, width = jnp.uint32(3), 8, 16
    seen = yang_2019.deep_pass(jax.nn.relu, batch_size, width, seed)
    key = jax.random.key(seed)
    h, cotangent = jax.random.normal(key, (2, batch_size, width))
    for layer in jax.random.split(jax.random.fold_in(key, 1), 30):
        z = h @ jax.random.normal(layer, (width, width)) / 4
        y, back = jax.vjp(lambda z: jax.nn.relu(batch_norm(z, *init(width), epsilon=1e-30)[0]), z)
        h = y
    (dz,) = back(cotangent)
    np.testing.assert_allclose(seen.gradient[-1], jnp.log(jnp.sum(dz**2)), rtol=1e-4)
    np.testing.assert_allclose(seen.second_moment[-1], jnp.mean(h**2), rtol=1e-4)


def test_reproduced_with_batch_norm_and_not_without(monkeypatch):
    assert yang_2019.RATES.measure(Setting(quick=True)).verdict == "reproduced"
    monkeypatch.setattr(yang_2019, "batch_norm", lambda z, *_, **__: (z, None))
    fresh = Setting(quick=True, first_seed=1)  # what was measured is remembered
    assert yang_2019.RATES.measure(fresh).verdict != "reproduced"
