"""The parts by themselves, each by an identity that a mistake would break."""

from functools import partial

import chex
import hypothesis
import hypothesis.strategies as st
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import reference

import jbn


def stack(*parts):
    return jax.tree.map(lambda *leaves: jnp.stack(leaves), *parts)


@hypothesis.settings(deadline=None, max_examples=25)
@hypothesis.given(
    sizes=st.lists(st.integers(0, 7), min_size=1, max_size=6).filter(any),
    seed=st.integers(0, 2**31),
    mean=st.sampled_from([0.0, 1e4, -3e5]),
)
def test_pooled_moments_are_those_of_the_union(sizes, seed, mean):
    x = mean + 0.5 * jax.random.normal(jax.random.key(seed), (7 * len(sizes), 3))
    mask = jnp.concatenate([jnp.arange(7) < size for size in sizes])
    groups = zip(x.reshape(-1, 7, 3), mask.reshape(-1, 7))
    pooled = jbn.pool_moments(stack(*(jbn.batch_moments(g, mask=m) for g, m in groups)))
    ref = reference.batch_norm(x, np.ones(3), np.zeros(3), x, mask=mask)
    np.testing.assert_array_equal(pooled.size, ref.size)
    # Each part's mean is a float32 here, so the union knows its own only to a unit.
    unit = np.spacing(np.float32(abs(mean) + 1))
    np.testing.assert_allclose(pooled.mean, ref.mean.astype(np.float32), atol=2 * unit)
    np.testing.assert_allclose(pooled.var, ref.var.astype(np.float32), rtol=1e-5, atol=3 * unit)


def test_an_empty_part_has_no_say(key):
    x = jax.random.normal(key, (6, 3))
    empty = jbn.Moments(jnp.full(3, jnp.nan), jnp.full(3, jnp.nan), jnp.zeros(3))
    pooled = jbn.pool_moments(stack(empty, jbn.batch_moments(x), empty))
    chex.assert_trees_all_close(pooled, jbn.batch_moments(x), rtol=1e-6)
    nothing = jbn.pool_moments(stack(empty, empty))
    chex.assert_trees_all_equal(nothing, jbn.Moments(*[jnp.zeros(3)] * 3))


def test_moments_pool_with_their_gradients(key):
    x, ct = jax.random.normal(key, (2, 10, 3))

    @partial(jax.jit, static_argnames="moments")
    def loss(x, moments):
        return jnp.sum(moments(x).mean * ct[0]) + jnp.sum(moments(x).var * ct[1])

    def in_parts(x):
        return jbn.pool_moments(stack(jbn.batch_moments(x[:3]), jbn.batch_moments(x[3:])))

    chex.assert_trees_all_close(
        jax.grad(loss)(x, in_parts), jax.grad(loss)(x, jbn.batch_moments), atol=1e-6
    )


def test_moments_of_masked_elements_differ_by_feature(key):
    x = jax.random.normal(key, (9, 4))
    mask = jax.random.bernoulli(key, 0.5, (9, 4))
    moments = jbn.batch_moments(x, mask=mask)
    for c in range(4):
        column = np.asarray(x)[np.asarray(mask)[:, c], c]
        assert moments.size[c] == len(column)
        np.testing.assert_allclose(moments.mean[c], column.mean(), rtol=1e-5)
        np.testing.assert_allclose(moments.var[c], column.var(), rtol=1e-5)


def test_bessel_correction_divides_by_one_less(key):
    x = jax.random.normal(key, (9, 4))
    corrected = jbn.bessel_correction(jbn.batch_moments(x))
    np.testing.assert_allclose(corrected.var, np.var(x, axis=0, ddof=1), rtol=1e-5)
    one = jbn.batch_moments(x[:1])
    chex.assert_trees_all_equal(jbn.bessel_correction(one), one)


@pytest.mark.parametrize("shape", [(4,), (7, 4), (3, 5, 2, 4)])
def test_normalize_is_the_formula_on_any_number_of_axes(key, shape):
    keys = jax.random.split(key, 2)
    x = jax.random.normal(keys[0], shape)
    mean, var, scale, bias = jnp.abs(jax.random.normal(keys[1], (4, 4))) + 0.1
    y = jbn.normalize(x, mean, var, scale, bias, epsilon=0.25)
    mean, var, scale, bias = map(np.asarray, (mean, var, scale, bias))
    expected = (np.asarray(x) - mean) / np.sqrt(var + 0.25) * scale + bias
    np.testing.assert_allclose(y, expected, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(
        jbn.normalize(x, mean, var), (np.asarray(x) - mean) / np.sqrt(var + 1e-5), rtol=1e-4
    )


def test_a_negative_variance_counts_as_zero():
    y = jbn.normalize(jnp.ones((2, 1)), jnp.zeros(1), -jnp.ones(1), epsilon=0.25)
    np.testing.assert_array_equal(y, 2)


@pytest.mark.parametrize("shape", [(5, 3), (800, 41)])
def test_normalize_differentiates_in_all_its_arguments(shape):
    with jax.enable_x64(True):
        keys = jax.random.split(jax.random.key(5), 3)
        x, ct = jax.random.normal(keys[0], (2, *shape))
        vectors = jnp.abs(jax.random.normal(keys[1], (4, shape[-1]))) + 0.5

        @jax.jit
        def function(x, vectors):
            return jbn.normalize(x, *vectors) * ct

        jax.test_util.check_grads(function, (x, vectors), order=2, atol=1e-4, rtol=1e-4)


def test_normalising_with_the_batch_moments_is_batch_norm(key):
    x = 3 + jax.random.normal(key, (50, 4))
    affine, stats = jbn.init(4)
    moments = jbn.batch_moments(x)
    y = jbn.normalize(x, moments.mean, moments.var, *affine)
    chex.assert_trees_all_close(y, jbn.batch_norm(x, affine, stats)[0], atol=1e-6)


def test_momentum_weighs_the_old_value(key):
    old = jbn.RunningStats(jnp.array([1.0]), jnp.array([2.0]))
    batch = jbn.Moments(jnp.array([5.0]), jnp.array([6.0]), jnp.array([4.0]))
    new = jbn.update_running(old, batch, momentum=0.75)
    np.testing.assert_array_equal((new.mean, new.var), ([2.0], [3.0]))
    chex.assert_trees_all_equal(jbn.update_running(old, batch, momentum=1.0), old)
    replaced = jbn.update_running(old, batch, momentum=0.0)
    np.testing.assert_array_equal((replaced.mean, replaced.var), ([5.0], [6.0]))


def test_warmup_makes_the_running_average_the_plain_one(key):
    batches = 2 + jax.random.normal(key, (12, 30, 3))
    _, stats = jbn.init(3)
    for step, x in enumerate(batches):
        moments = jbn.batch_moments(x)
        stats = jbn.update_running(stats, moments, momentum=jbn.warmup_momentum(step, 0.99))
        so_far = np.asarray(batches[: step + 1])
        np.testing.assert_allclose(stats.mean, so_far.mean((0, 1)), rtol=1e-5)
        np.testing.assert_allclose(stats.var, so_far.var(1).mean(0), rtol=1e-5)
    assert jbn.warmup_momentum(10_000, 0.9) == jnp.float32(0.9)


def test_nothing_false_to_alarm_debug_nans(key):
    x = jax.random.normal(key, (6, 3))
    with jax.debug_nans(True):
        out = jbn.batch_norm(x, *jbn.init(3), mask=jnp.zeros(6, bool))
        moments = jbn.batch_moments(x, mask=jnp.arange(6) < 2)
        chex.assert_tree_all_finite((out, moments))


def test_the_articles_example():
    """Its text has the biased variance; its PyTorch code divides by N - 1 and prints -1, 0, 1."""
    x = jnp.array([[1.0, 2, 3, 4], [5, 6, 7, 8], [9, 10, 11, 12]])
    moments = jbn.batch_moments(x)
    np.testing.assert_array_equal(moments.mean, [5, 6, 7, 8])
    np.testing.assert_allclose(moments.var, 10.6667, atol=5e-5)
    y, _ = jbn.batch_norm(x, *jbn.init(4), epsilon=1e-5)
    column = np.array([-1.2247, 0, 1.2247])
    np.testing.assert_allclose(y, np.tile(column[:, None], 4), atol=5e-5)

    unbiased = jbn.bessel_correction(moments)
    np.testing.assert_array_equal(unbiased.var, 16)
    y = jbn.normalize(x, unbiased.mean, unbiased.var, epsilon=1e-5)
    np.testing.assert_allclose(y, np.tile([[-1], [0], [1]], 4), atol=5e-5)
