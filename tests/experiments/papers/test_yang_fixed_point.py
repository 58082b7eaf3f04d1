"""Angles between the examples of a batch, and how soon layers forget them."""

import jax
import jax.numpy as jnp
import numpy as np

from experiments.papers.claims.yang_fixed_point import angles, clustered, linear_memory


def test_two_clusters_come_in():
    h = np.asarray(clustered(jax.random.key(0), 6, 100_000), np.float64)
    expected = np.kron(np.eye(2), np.full((3, 3), 0.9))
    np.fill_diagonal(expected, 1.0)
    np.testing.assert_allclose(np.corrcoef(h), expected, atol=0.02)


def test_angles_are_those_of_all_pairs():
    h = np.random.default_rng(0).normal(size=(6, 5))
    cosine = {
        (i, j): h[i] @ h[j] / np.sqrt((h[i] @ h[i]) * (h[j] @ h[j]))
        for i in range(6)
        for j in range(i + 1, 6)
    }
    within = [c for (i, j), c in cosine.items() if (i < 3) == (j < 3)]
    between = [c for (i, j), c in cosine.items() if (i < 3) != (j < 3)]
    found = angles(jnp.float32(h))
    every = [*cosine.values()]
    expected = np.mean(every), np.std(every), np.mean(within) - np.mean(between)
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-6)


def test_what_linear_layers_keep_of_a_difference():
    n, small = 7, 0.1
    spread = 1 + small * np.array([1, -1, 0, 0, 0, 0, 0])
    z = np.random.default_rng(0).normal(size=(300_000, n)) * np.sqrt(spread)
    kept = n * (z**2 / (z**2).sum(axis=1, keepdims=True)).mean(axis=0) - 1
    np.testing.assert_allclose((kept[0] - kept[1]) / (2 * small), linear_memory(n + 1), rtol=0.05)
