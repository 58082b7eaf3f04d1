"""A network whose weights have no scale, and the sharpness that is measured of it."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from jax.flatten_util import ravel_pytree

from experiments.papers.claims import lyu_2022
from experiments.papers.claims.lyu_2022 import Course, descend, falls, initial, loss, settled
from experiments.papers.tools.digits import digits
from jbn import Standard


def test_sharpness_is_that_of_the_whole_hessian(monkeypatch):
    monkeypatch.setattr(lyu_2022, "_WIDTHS", (64, 3, 3, 10))
    images = digits(64)
    loss_fn = partial(loss, Standard(), images=images)
    kernels = initial(jnp.uint32(0))
    flat, unravel = ravel_pytree(kernels)
    value, hessian = jax.jit(
        lambda w: (loss_fn(unravel(w)), jax.hessian(lambda w: loss_fn(unravel(w)))(w))
    )(flat)
    sharpness = np.linalg.eigvalsh(np.asarray(hessian, np.float64))[-1]
    course = jax.jit(partial(descend, Standard(), 1))(images, jnp.uint32(0), jnp.float32(0.01))
    np.testing.assert_allclose(course.to_edge[0], lyu_2022._RATE * sharpness / 2, rtol=0.02)
    np.testing.assert_allclose(course.scale_free[0], sharpness * flat @ flat, rtol=0.02)
    np.testing.assert_allclose(course.loss[0], value, rtol=1e-5)
    # No weight has a scale, those of the last kernel neither.
    for factors in ((3, 1, 1), (1, 1, 0.5)):
        scaled = tuple(f * w for f, w in zip(factors, kernels))
        np.testing.assert_allclose(loss_fn(scaled), value, rtol=1e-3)


def test_a_fall_is_counted_from_the_edge_to_the_last_quarter():
    to_edge = np.array([[0.5, 0.9, 1.1, 0.9, 1.2, 1.0, 1.0, 1.0], [0.5] * 8])
    sharpness = np.array([[900.0, 400, 100, 50, 20, 5, 10, 30], [8.0] * 8])
    course = Course(to_edge, sharpness, sharpness)
    np.testing.assert_allclose(falls(course)[0], np.log10(100 / 20))
    assert np.isnan(falls(course)[1])
    np.testing.assert_allclose(settled(course), [1.0, 0.5])
