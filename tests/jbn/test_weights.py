"""Weighted moments against extended precision, and as repeated examples."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jbn

RNG = np.random.default_rng(4)


def right(x, weights):
    x, w = x.astype(np.longdouble), weights.astype(np.longdouble)
    axes = tuple(range(x.ndim - 1))
    size = w.sum(axes)
    shift = x.mean(axes)
    mean = (w * (x - shift)).sum(axes) / size
    centred = x - shift - mean
    return mean + shift, (w * centred**2).sum(axes) / size, size, centred


@pytest.mark.parametrize("mean", [0.0, 1e4, -1e7])
@pytest.mark.parametrize("scale", [1.0, 1e-6, 1e5])
def test_moments_and_their_gradients(mean, scale):
    x = np.float32(mean + RNG.standard_normal((6, 50, 3)))
    weights = np.float32(scale * RNG.uniform(0, 2, (6, 50, 3)) * (RNG.random((6, 50, 3)) < 0.8))
    ct = np.float32(RNG.standard_normal((2, 3)))
    m, v, size, centred = right(x, weights)

    @jax.jit
    def loss(x, weights):
        moments = jbn.batch_moments(x, weights=weights)
        return jnp.vdot(ct[0], moments.mean) + jnp.vdot(ct[1], moments.var), moments

    (dx, dw), found = jax.grad(loss, (0, 1), has_aux=True)(x, weights)
    found = jax.tree.map(np.asarray, found)
    unit = np.abs(m) + np.sqrt(v)
    assert np.all(np.abs(found.mean - m) < 3e-7 * unit)
    assert np.all(np.abs(np.longdouble(found.mean) + found.remainder - m) < 1e-6 * np.sqrt(v))
    assert np.all(np.abs(found.var - v) < 4e-6 * v)
    np.testing.assert_allclose(found.size, size.astype(float), rtol=1e-5)
    expected = weights * (ct[0] + 2 * ct[1] * centred) / size
    np.testing.assert_allclose(dx, expected.astype(float), atol=1e-5 * np.abs(expected).max())
    expected = (ct[0] * centred + ct[1] * (centred**2 - v)) / size
    np.testing.assert_allclose(dw, expected.astype(float), atol=1e-5 * np.abs(expected).max())


def test_a_weight_of_two_is_an_example_twice():
    x = jnp.float32(RNG.normal(5, 1, (40, 3)))
    counts = RNG.integers(0, 3, 40)
    twice = jbn.batch_moments(jnp.repeat(x, counts, axis=0, total_repeat_length=counts.sum()))
    for weights in (jnp.float32(counts), jnp.float32(counts)[:, None], np.float32(counts)):
        found = jbn.batch_moments(x, weights=weights)
        chex.assert_trees_all_close(found, twice, rtol=1e-5, atol=1e-5)
    parts = [jbn.batch_moments(x[s], weights=jnp.float32(counts)[s]) for s in np.s_[:9, 9:]]
    pooled = jbn.pool_moments(jax.tree.map(lambda *leaves: jnp.stack(leaves), *parts))
    chex.assert_trees_all_close(pooled, twice, rtol=1e-5, atol=1e-5)


def test_a_mask_and_zeros_hide_anything():
    x, mask = jnp.float32(RNG.standard_normal((8, 2))), jnp.arange(8) < 5
    weights = jnp.where(mask, 1.0, 0.0)
    plain = jbn.batch_moments(x[:5])
    broken = jnp.where(mask[:, None], x, jnp.nan)
    for given in ({"weights": weights}, {"weights": jnp.ones(8), "mask": mask}):
        chex.assert_trees_all_close(jbn.batch_moments(broken, **given), plain, atol=1e-6)
        dx = jax.grad(lambda x, given=given: jbn.batch_moments(x, **given).var.sum())(broken)
        chex.assert_tree_all_finite(dx)
    nothing = jbn.batch_moments(x, weights=jnp.zeros(8))
    chex.assert_trees_all_equal(nothing, jbn.Moments(*jnp.zeros((3, 2))))
    tiny = jbn.batch_moments(x, weights=jnp.full(8, 1e-6))  # their sum is below one
    chex.assert_trees_all_close(tiny.var, jbn.batch_moments(x).var, rtol=1e-5)
    assert jnp.isnan(jbn.batch_moments(x, weights=-weights).mean).all()


def test_weights_that_do_not_fit_are_refused():
    x = jnp.ones((8, 2))
    with pytest.raises(
        ValueError, match=r"weights of shape \(2,\) does not fit.*one number per ex"
    ):
        jbn.batch_moments(x, weights=jnp.ones(2))
    with pytest.raises(TypeError, match="weights"):
        jbn.batch_moments(x, weights=jnp.arange(8))
