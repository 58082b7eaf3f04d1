"""Standardised weights, and the gain of ReLU."""

import jax
import numpy as np
import pytest

from experiments.papers.claims.brock_2021 import (
    GAIN,
    gaussian,
    gaussian_variance,
    standardized,
)


def test_every_unit_has_mean_zero_and_the_same_size():
    w = np.asarray(standardized(jax.random.normal(jax.random.key(0), (6, 4)) + 1.0))
    np.testing.assert_allclose(w.mean(axis=0), 0, atol=1e-6)
    np.testing.assert_allclose((w**2).mean(axis=0), 1 / 6, rtol=1e-5)
    ones = np.ones((6, 4), np.float32)
    np.testing.assert_allclose(gaussian(ones), 1 / np.sqrt(6), rtol=1e-6)


def test_the_gain_gives_relu_variance_one():
    z = np.maximum(np.random.default_rng(0).normal(size=10**6), 0)
    assert GAIN * z.std() == pytest.approx(1, abs=0.003)


def test_variance_is_lost_without():
    assert gaussian_variance(0) == 1
    assert gaussian_variance(1) == pytest.approx(1 - 1 / np.pi)
    assert gaussian_variance(60) < 0.02
