import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from experiments.study.measure import (
    BIN_EDGES,
    cosine,
    gradient_noise,
    histogram,
    kernel_norms,
    typical_percentiles,
)


def tree(seed: int, lead: tuple[int, ...] = ()):
    """A gradient of two layers, with a norm between them that has no kernel."""
    rng = np.random.default_rng(seed)
    layers = {
        "hidden_1": {"kernel": (4, 3)},
        "norm_1": {"scale": (3,), "bias": (3,)},
        "output": {"kernel": (3, 2), "bias": (2,)},
    }
    draw = lambda shape: jnp.array(rng.normal(size=lead + shape), jnp.float32)  # noqa: E731
    return jax.tree.map(draw, layers, is_leaf=lambda x: isinstance(x, tuple))


def flat(tree) -> np.ndarray:
    return np.concatenate([np.ravel(leaf) for leaf in jax.tree.leaves(tree)]).astype(np.float64)


def test_kernel_norms_come_in_the_order_asked():
    g = tree(0)
    expected = [np.linalg.norm(g[layer]["kernel"]) for layer in ("output", "hidden_1")]
    chex.assert_trees_all_close(
        kernel_norms([g["output"]["kernel"], g["hidden_1"]["kernel"]]), jnp.array(expected)
    )


def test_cosine_is_over_all_parameters():
    a, b = flat(tree(0)), flat(tree(1))
    expected = a @ b / np.linalg.norm(a) / np.linalg.norm(b)
    assert float(cosine(tree(0), tree(1))) == pytest.approx(expected, rel=1e-5)
    assert float(cosine(tree(0), jax.tree.map(lambda x: -3 * x, tree(0)))) == pytest.approx(-1)


def test_gradient_noise_is_spread_over_mean():
    g = tree(0, lead=(5,))
    expected = []
    for layer in ("hidden_1", "output"):
        each = np.asarray(g[layer]["kernel"], np.float64).reshape(5, -1)
        mean = each.mean(0)
        spread = np.mean([np.sum((one - mean) ** 2) for one in each])
        expected.append(np.sqrt(spread) / np.linalg.norm(mean))
    np.testing.assert_allclose(
        gradient_noise([g["hidden_1"]["kernel"], g["output"]["kernel"]]), expected, rtol=1e-5
    )


def test_equal_gradients_have_no_noise():
    g = jax.tree.map(lambda x: jnp.stack([x] * 4), tree(0))
    chex.assert_trees_all_close(gradient_noise([g["output"]["kernel"]]), jnp.zeros(1), atol=1e-6)


@pytest.mark.parametrize("examples", [1, 2, 7, 100, 101])
def test_percentiles_per_unit_then_median_over_units(examples):
    x = np.random.default_rng(examples).normal(size=(examples, 6)) * [1, 10, 0.1, 1e-3, 1e3, 1]
    x = x.astype(np.float32)
    expected = np.median(np.percentile(x, [15, 50, 85], axis=0), axis=1)
    np.testing.assert_allclose(typical_percentiles(jnp.array(x)), expected, rtol=1e-4, atol=1e-6)


def test_percentiles_of_zeros_infinities_and_ties():
    x = jnp.array([[-jnp.inf, 0.0, -0.0, -1e-40, 1e-40, 2.0, 2.0, 2.0, jnp.inf]]).T
    low, middle, high = typical_percentiles(x[::-1])
    assert abs(low) < 1e-30
    assert abs(middle) < 1e-30
    assert high == 2


def test_a_histogram_takes_all_units_together():
    x = np.random.default_rng(0).normal(size=(200, 7)) * np.array([0.01, 0.1, 1, 2, 4, 6, 1])
    counts, _ = np.histogram(x, BIN_EDGES)
    assert counts.sum() == x.size
    # A value on an edge may be rounded to either side of it.
    np.testing.assert_allclose(histogram(jnp.array(x, jnp.float32)), counts / x.size, atol=2 / 1400)


def test_what_lies_beyond_counts_with_the_outermost_bins():
    x = jnp.array([[-jnp.inf, -1e30, -25.0, 0.01, 21.0, jnp.inf]])
    fractions = histogram(x)
    np.testing.assert_allclose(fractions[jnp.array([0, 16, -1])], [3 / 6, 1 / 6, 2 / 6], rtol=1e-6)
