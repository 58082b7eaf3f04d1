"""Margins of the three linear models, and the largest margin against SciPy."""

import jax
import jax.numpy as jnp
import numpy as np
from scipy import optimize

from experiments.papers.claims import cao_2023
from jbn import Standard, Uncentered

X = np.random.default_rng(0).normal(0.5, 1.0, (6, 4)).astype(np.float32)
PARAMS = cao_2023._Params(jnp.full((4, 1), 0.3), jnp.full(1, 2.0), jnp.full(1, 0.5))


def test_the_models():
    z = X @ np.full(4, 0.3)
    x = jnp.asarray(X)
    uncentred = cao_2023.batch_normed(Uncentered(), PARAMS, x)
    np.testing.assert_allclose(uncentred, 2 * z / np.sqrt((z**2).mean()), rtol=1e-5)
    centred = cao_2023.batch_normed(Standard(), PARAMS, x)
    np.testing.assert_allclose(centred, 2 * (z - z.mean()) / z.std() + 0.5, rtol=1e-4)
    np.testing.assert_allclose(cao_2023.weight_normed(PARAMS, x), 2 * z / 0.6, rtol=1e-5)


def test_the_problem_is_balanced():
    with jax.enable_x64(True):
        x, y = cao_2023.problem(jax.random.key(0))
    assert x.dtype == np.float64
    assert np.asarray(y).sum() == 0


def test_the_largest_margin():
    rng = np.random.default_rng(1)
    x, y = rng.normal(size=(8, 12)), np.tile([1.0, -1.0], 4)
    margins = cao_2023.largest_margin(x, y)
    found = optimize.minimize(
        lambda w: w @ w,
        np.linalg.lstsq(x, y, rcond=None)[0],
        jac=lambda w: 2 * w,
        constraints={"type": "ineq", "fun": lambda w: y * (x @ w) - 1},
    )
    expected = y * (x @ found.x)
    np.testing.assert_allclose(margins, expected / expected.mean(), atol=1e-4)
