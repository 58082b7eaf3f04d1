"""What is measured of an odd example, and recentring."""

import jax.numpy as jnp
import numpy as np
import pytest

from experiments.papers.claims.nachum_2024 import geometry, recentre


def test_the_odd_example_is_told_from_the_cluster():
    h = np.zeros((5, 3), np.float32)
    h[:, 0], h[2] = 1, [0, 0, 4]
    h[0] = [1, 0.75, 0]  # cosine 0.8 with the others of the cluster
    seen = geometry(jnp.asarray(h))
    assert seen.odd == pytest.approx(0)
    assert seen.others == pytest.approx((3 * 0.8 + 3 * 1) / 6, rel=1e-6)
    assert seen.length == pytest.approx(4 / ((1.25 + 1 + 1 + 1) / 4), rel=1e-6)


def test_recentring_keeps_the_scales_of_units_apart():
    z = np.random.default_rng(0).normal(1.0, [1.0, 3.0], (50, 2)).astype(np.float32)
    y = np.asarray(recentre(jnp.asarray(z)))
    np.testing.assert_allclose(y.mean(axis=0), 0, atol=1e-6)
    assert np.mean(y**2) == pytest.approx(1, rel=1e-5)
    assert y[:, 1].std() / y[:, 0].std() == pytest.approx(z[:, 1].std() / z[:, 0].std(), rel=1e-4)
