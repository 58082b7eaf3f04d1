"""Each variant by the identity that defines it; what all share is in test_contract."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jbn

X = 3 + 2 * jax.random.normal(jax.random.key(0), (24, 5))
CT = jax.random.normal(jax.random.key(1), X.shape)
AFFINE = jbn.Affine(*(1 + jax.random.normal(jax.random.key(2), (2, 5))))
STATS = jbn.RunningStats(jnp.linspace(2, 4, 5), jnp.linspace(1, 6, 5))


def train(variant, x=X, affine=AFFINE, **options):
    return jbn.batch_norm(x, affine, STATS, variant=variant, **options)


def gradient(variant, x=X):
    return jax.grad(lambda x: jnp.sum(train(variant, x)[0] * CT))(x)


@pytest.mark.parametrize("base", [jbn.Standard(), jbn.Renorm(1.5, 0.5)])
def test_ghost_is_a_loop_over_groups(base):
    y, stats = train(jbn.Ghost(8, base=base))
    looped = jnp.concatenate([train(base, group)[0] for group in X.reshape(3, 8, 5)])
    chex.assert_trees_all_close(y, looped, atol=1e-6)
    chex.assert_trees_all_close(stats, train(jbn.Standard())[1], rtol=1e-6)
    chex.assert_trees_all_close(train(jbn.Ghost(24, base=base))[0], train(base)[0], atol=1e-6)


def test_ghost_masks_each_group_by_itself():
    mask = jnp.arange(24) % 8 < jnp.repeat(jnp.array([8, 3, 0]), 8)
    y, stats = train(jbn.Ghost(8), mask=mask)
    chex.assert_trees_all_close(y[8:11], train(jbn.Standard(), X[8:11])[0], atol=1e-6)
    chex.assert_trees_all_close(stats, train(jbn.Standard(), mask=mask)[1], rtol=1e-6)


def test_ghost_names_the_batch_it_does_not_divide():
    message = r"Ghost\(group_size=7, .*\) needs a batch it divides, got x.shape\[0\]=24.*divisor"
    with pytest.raises(ValueError, match=message):
        train(jbn.Ghost(7))
    for bad in (1, 0, -8, 2.5):
        with pytest.raises(ValueError, match="group_size must be an int of at least 2"):
            jbn.Ghost(bad)


def test_renorm_lies_between_training_and_inference():
    chex.assert_trees_all_close(train(jbn.Renorm(1.0, 0.0))[0], train(jbn.Standard())[0], atol=1e-6)
    free = train(jbn.Renorm(1e6, 1e6))[0]
    chex.assert_trees_all_close(free, jbn.normalize(X, *STATS, *AFFINE), atol=1e-5)


def test_renorm_begins_as_batch_norm_and_opens():
    @jax.jit
    def bounds(step, **options):
        renorm = jbn.RenormSchedule(**options).at(step)
        return jnp.stack([jnp.asarray(bound) for bound in (renorm.r_max, renorm.d_max)])

    published = {
        0: (1, 0),
        5000: (1, 0),
        25_000: (1 + 2 * 20 / 35, 5),
        40_000: (3, 5),
        10**6: (3, 5),
    }
    for step, right in published.items():
        np.testing.assert_allclose(bounds(step), right, rtol=1e-6)
    opened = [jbn.RenormSchedule(9, r_steps=0, d_steps=0).at(step) for step in (8, 9)]
    chex.assert_trees_all_close(opened[0], jbn.Renorm(1.0, 0.0))
    chex.assert_trees_all_close(opened[1], jbn.Renorm(3.0, 5.0))
    with pytest.raises(ValueError, match="step"):
        jbn.RenormSchedule().at(-1)
    for options in ({"warmup": -1}, {"r_max": 0.5}, {"d_max": -1.0}, {"r_steps": "3"}):
        with pytest.raises((ValueError, TypeError), match=next(iter(options))):
            jbn.RenormSchedule(**options)


def test_renorm_is_the_papers_algorithm():
    y, _ = train(jbn.Renorm(1.2, 0.3))
    mean, deviation = X.mean(0), jnp.sqrt(X.var(0) + 1e-5)
    running = jnp.sqrt(STATS.var + 1e-5)
    r = jnp.clip(deviation / running, 1 / 1.2, 1.2)
    d = jnp.clip((mean - STATS.mean) / running, -0.3, 0.3)
    row = lambda v: v[None]  # noqa: E731
    xhat = (X - row(mean)) / row(deviation) * row(r) + row(d)
    chex.assert_trees_all_close(y, xhat * row(AFFINE.scale) + row(AFFINE.bias), atol=1e-5)
    # r and d are constants to the gradient: it is that of Standard, r times.
    expected = gradient(jbn.Standard()) * row(r)
    chex.assert_trees_all_close(gradient(jbn.Renorm(1.2, 0.3)), expected, atol=1e-6)


@pytest.mark.parametrize(("sd", "elsewhere"), [(1, 6.6e-4), (0.1, 5.3e-2), (0.03, 0.17)])
def test_renorm_without_clipping_trains_as_it_infers(sd, elsewhere):
    """So the paper's formula does; epsilon added after the division by r^2 does not."""
    with jax.enable_x64(True):
        x = sd * np.random.default_rng(0).normal(size=(256, 1))
        mean, var, eps = x.mean(0), x.var(0), 1e-3
        old_mean, old_var = mean - sd / 2, var / 1.1**2
        stats = jbn.RunningStats(jnp.asarray(old_mean), jnp.asarray(old_var))
        affine, _ = jbn.init(1, jnp.float64)
        y, _ = jbn.batch_norm(
            jnp.asarray(x), affine, stats, variant=jbn.Renorm(3.0, 5.0), epsilon=eps
        )
        inference = (x - old_mean) / np.sqrt(old_var + eps)
        assert np.abs(y - inference).max() < 1e-14
        r = np.sqrt((var + eps) / (old_var + eps))
        d = (mean - old_mean) / np.sqrt(old_var + eps)
        theirs = (x - mean + d * np.sqrt(var) / r) / np.sqrt(var / r**2 + eps)
        np.testing.assert_allclose(np.abs(theirs - inference).max(), elsewhere, rtol=0.03)


def test_a_schedule_of_renorm_does_not_recompile():
    step = chex.assert_max_traces(lambda r, d: train(jbn.Renorm(r, d))[0], n=1)
    jitted = jax.jit(step)
    for t in range(3):
        jitted(1.0 + t, 0.5 * t)
    before = jbn._batch_norm._batch_norm._cache_size()
    for t in range(3):
        train(jbn.Renorm(1.5 + t, 0.25 * t))
    assert jbn._batch_norm._batch_norm._cache_size() - before <= 1


@pytest.mark.parametrize(("name", "value"), [("r_max", 0.5), ("d_max", -1.0), ("r_max", "3")])
def test_renorm_names_a_bad_bound(name, value):
    with pytest.raises((ValueError, TypeError), match=f"{name} must "):
        jbn.Renorm(**{name: value})


def test_running_is_inference_whose_statistics_move():
    y, stats = train(jbn.Running())
    chex.assert_trees_all_equal(y, jbn.normalize(X, *STATS, *AFFINE))
    chex.assert_trees_all_close(stats, train(jbn.Standard())[1])
    gain = AFFINE.scale / jnp.sqrt(STATS.var + 1e-5)
    chex.assert_trees_all_close(gradient(jbn.Running()), CT * gain[None], atol=1e-6)


def test_uncentered_divides_by_the_root_mean_square_in_training_and_inference():
    y, stats = train(jbn.Uncentered(), momentum=0.0)
    rms = jnp.sqrt(jnp.mean(jnp.square(X), axis=0) + 1e-5)
    expected = X / rms[None] * AFFINE.scale[None] + AFFINE.bias[None]
    chex.assert_trees_all_close(y, expected, atol=1e-6)
    chex.assert_trees_all_close(jbn.normalize(X, *stats, *AFFINE), expected, atol=1e-5)
    with jax.enable_x64(True):
        x = jnp.asarray(X, jnp.float64)
        stats = jbn.init(5, jnp.float64)[1]
        function = lambda x: jbn.batch_norm(x, AFFINE, stats, variant=jbn.Uncentered())[0]  # noqa: E731
        jax.test_util.check_grads(function, (x,), order=1, rtol=1e-5)


@pytest.mark.parametrize("mean", [True, False])
@pytest.mark.parametrize("var", [True, False])
def test_detached_cuts_the_terms_it_names(mean, var):
    variant = jbn.Detached(mean=mean, var=var)
    chex.assert_trees_all_equal(train(variant), train(jbn.Standard()))
    moments = jbn.batch_moments(X)
    xhat = jbn.normalize(X, moments.mean, moments.var)
    kept = CT - (0 if mean else CT.mean(0, keepdims=True))
    kept -= 0 if var else xhat * (CT * xhat).mean(0, keepdims=True)
    gain = AFFINE.scale / jnp.sqrt(moments.var + 1e-5)
    chex.assert_trees_all_close(gradient(variant), kept * gain[None], atol=1e-5)


def test_noise_is_drawn_from_the_key_within_its_bounds():
    x = jax.random.normal(jax.random.key(4), (20_000, 40))
    affine, stats = jbn.init(40)
    clean, moments = jbn.batch_norm(x, affine, stats)
    noisy = lambda key: jbn.batch_norm(x, affine, stats, variant=jbn.Noisy(key))  # noqa: E731
    y, same = noisy(jax.random.key(5))
    chex.assert_trees_all_equal(same, moments)
    chex.assert_trees_all_equal(noisy(jax.random.key(5))[0], y)
    assert not np.allclose(noisy(jax.random.key(6))[0], y)

    # Per feature, y = s x + m with s in U(1, 1.25) and m in U(-0.5, 0.5).
    means, scales = y.mean(0), (y * clean).mean(0)
    assert np.abs(means).max() < 0.52
    assert np.abs(means).max() > 0.35
    assert scales.min() > 0.98
    assert scales.max() < 1.27
    assert np.ptp(scales) > 0.15
    # Per example, what is left has the variance of s about s_j times x and of m about m_j.
    rest = y - clean * scales[None] - means[None]
    np.testing.assert_allclose(rest.var(0), 0.1**2 + 0.2**2 / 12, rtol=0.1)
