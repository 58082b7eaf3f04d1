"""Gradient descent through batch norm on least squares, and its bound."""

from functools import partial

import jax
import numpy as np
import pytest

from experiments.papers.claims.kohler_2019 import largest_factor, random_problem, suboptimality
from jbn import Standard


def test_the_batch_has_its_covariance():
    with jax.enable_x64(True):
        x, covariance, target, u = map(np.asarray, random_problem(5.0, jax.random.key(0)))
    np.testing.assert_allclose(x.mean(axis=0), 0, atol=1e-12)
    np.testing.assert_allclose(x.T @ x / len(x), covariance, atol=1e-12)
    np.testing.assert_allclose(np.linalg.eigvalsh(covariance)[[0, -1]], [1, 5])
    np.testing.assert_allclose(x.T @ target / len(x), u, atol=1e-12)


def test_a_step_is_that_of_the_rayleigh_quotient():
    """With batch norm, rho(w) = -(u.w)²/(w' S w), computed by hand for two steps."""
    condition, seed = np.float64(5), np.uint32(0)
    with jax.enable_x64(True):
        above, plain = jax.jit(partial(suboptimality, Standard()))(condition, seed)
        problem_key, start_key = jax.random.split(jax.random.key(seed))
        _, s, _, u = map(np.asarray, random_problem(condition, problem_key))
        w = np.asarray(jax.random.normal(start_key, (16, 20), np.float64))[0]
    best = u @ np.linalg.solve(s, u)
    for value in np.asarray(above)[0, :3]:
        square = w @ s @ w
        quotient = (u @ w) ** 2 / square
        assert value == pytest.approx(best - quotient, rel=1e-9)
        gradient = 2 * (u @ w) / square * u - 2 * quotient / square * (s @ w)
        w = w + square / (2 * condition * quotient) * gradient
    assert (np.asarray(above)[:, -1] < 1e-6 * np.asarray(above)[:, 0]).all()
    assert 0.5 < largest_factor(np.asarray(plain)) <= 0.64 + 1e-9


def test_the_largest_factor_is_before_rounding():
    assert largest_factor(np.array([[1.0, 0.5, 0.4, 1e-10, 2e-10]])) == pytest.approx(0.8)
    assert np.isnan(largest_factor(np.array([[1.0, np.nan]])))
