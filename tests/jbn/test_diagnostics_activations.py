"""Measures of activations against closed forms and numpy in float64."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jbn
from jbn import diagnostics

RNG = np.random.default_rng(0)


def test_percentiles_are_numpys():
    x = RNG.normal(size=(4, 9, 3))
    found = diagnostics.activation_percentiles(jnp.float32(x), (0, 15, 50, 85, 100))
    expected = np.percentile(x.reshape(-1, 3), (0, 15, 50, 85, 100), axis=0)
    np.testing.assert_allclose(found, expected, rtol=1e-5)
    x[0, 0, 1] = np.nan
    found = diagnostics.activation_percentiles(jnp.float32(x))
    assert jnp.isnan(found).tolist() == [[False, True, False]] * 3
    with pytest.raises(ValueError, match=r"percentiles must lie in \[0, 100\]"):
        diagnostics.activation_percentiles(jnp.float32(x), (50, 101))


def test_dead_units_never_exceed_the_threshold():
    x = jnp.asarray([[-1.0, 0.0, 0.3], [-2.0, 1.0, -1.0]])[:, None]
    assert diagnostics.dead_units(x).tolist() == [True, False, False]
    assert diagnostics.dead_units(jax.nn.relu(x)).tolist() == [True, False, False]
    assert diagnostics.dead_units(x, threshold=0.3).tolist() == [True, False, True]


def orthogonal(rows, columns):
    return jnp.float32(np.linalg.qr(RNG.normal(size=(columns, rows)))[0].T)


def test_an_isometry():
    x = 1e-12 * orthogonal(6, 10)
    np.testing.assert_allclose(diagnostics.isometry_gap(x), 0, atol=1e-5)
    np.testing.assert_allclose(diagnostics.effective_rank(x), 6, rtol=1e-5)
    np.testing.assert_allclose(diagnostics.participation_ratio(x), 6, rtol=1e-5)
    np.testing.assert_allclose(diagnostics.orthogonality_gap(x), 0, atol=1e-6)
    np.testing.assert_allclose(diagnostics.mean_absolute_cosine(x), 0, atol=1e-6)


def test_examples_that_are_all_alike():
    x = 1e12 * jnp.ones((5, 1)) * jnp.linspace(-1, 1, 8)[None]
    assert diagnostics.isometry_gap(x) > 10
    np.testing.assert_allclose(diagnostics.effective_rank(x), 1, rtol=1e-5)
    np.testing.assert_allclose(diagnostics.participation_ratio(x), 1, rtol=1e-5)
    np.testing.assert_allclose(diagnostics.orthogonality_gap(x), np.sqrt(0.8), rtol=1e-5)
    np.testing.assert_allclose(diagnostics.mean_absolute_cosine(x), 1, rtol=1e-5)


@pytest.mark.parametrize("shape", [(16, 64), (64, 64), (32, 128), (7, 11)])
def test_the_isometry_gap_of_what_batch_norm_gives_out(shape):
    x = jnp.float32(RNG.normal(size=shape))
    y, _ = jbn.batch_norm(x, *jbn.init(shape[1]))
    assert diagnostics.isometry_gap(y) == jnp.inf  # the examples sum to zero
    centred = np.float64(y) - np.float64(y).mean(0)
    values = np.linalg.svd(centred, compute_uv=False)[: shape[0] - 1] ** 2
    gap = np.log(values.mean()) - np.log(values).mean()
    np.testing.assert_allclose(diagnostics.isometry_gap(y, centred=True), gap, rtol=1e-4)
    np.testing.assert_allclose(diagnostics.isometry_gap(y + 5, centred=True), gap, rtol=1e-3)


def test_zeros_spread_over_no_direction():
    zeros = jnp.zeros((4, 3))
    assert diagnostics.isometry_gap(zeros) == jnp.inf
    assert diagnostics.effective_rank(zeros) == 0
    assert diagnostics.effective_rank(zeros, squared=True) == 0
    assert diagnostics.participation_ratio(zeros) == 0
    alike = diagnostics.orthogonality_gap(jnp.ones((4, 3)))
    np.testing.assert_allclose(diagnostics.orthogonality_gap(zeros), alike, rtol=1e-6)
    # One example of zeros among others: a row and a column of the Gram matrix.
    x = jnp.float32(RNG.normal(size=(4, 5))).at[2].set(0)
    gram = np.float64(x) @ np.float64(x).T
    gap = np.linalg.norm(gram / np.trace(gram) - np.eye(4) / 4)
    np.testing.assert_allclose(diagnostics.orthogonality_gap(x), gap, rtol=1e-5)
    others = jnp.delete(x, 2, axis=0)
    for rank in (diagnostics.effective_rank, diagnostics.participation_ratio):
        np.testing.assert_allclose(rank(x), rank(others), rtol=1e-5)
    assert diagnostics.isometry_gap(x) == jnp.inf
    assert jnp.isnan(diagnostics.mean_absolute_cosine(x))


def test_a_known_spectrum_between_the_two():
    values = np.array([4.0, 1.0, 0.5, 0.01])
    x = orthogonal(4, 4) @ jnp.diag(jnp.sqrt(jnp.float32(values))) @ orthogonal(4, 9)
    p = values / values.sum()
    gap = np.log(values.mean()) - np.log(values).mean()
    np.testing.assert_allclose(diagnostics.isometry_gap(x), gap, rtol=1e-5)
    for squared in (False, True):
        q = values if squared else np.sqrt(values)
        rank = np.exp(-(q / q.sum() * np.log(q / q.sum())).sum())
        found = diagnostics.effective_rank(x, squared=squared)
        np.testing.assert_allclose(found, rank, rtol=1e-5)
    np.testing.assert_allclose(diagnostics.participation_ratio(x), 1 / (p**2).sum(), 1e-5)
    gram = np.float64(x @ x.T) / values.sum()
    gap = np.linalg.norm(gram - np.eye(4) / 4)
    np.testing.assert_allclose(diagnostics.orthogonality_gap(x), gap, rtol=1e-5)
    # More examples than dimensions: the rest of their Gram matrix is zero.
    assert diagnostics.isometry_gap(x.T) == jnp.inf
    chex.assert_trees_all_close(diagnostics.effective_rank(x.T), diagnostics.effective_rank(x))
    images = x.reshape(4, 3, 3)
    chex.assert_trees_all_close(diagnostics.effective_rank(images), diagnostics.effective_rank(x))


def test_cosines_are_of_pairs_of_examples():
    x = RNG.normal(size=(5, 7)) * np.logspace(-25, 10, 5)[:, None]
    rows = x / np.linalg.norm(x, axis=1, keepdims=True)
    pairs = [abs(rows[i] @ rows[j]) for i in range(5) for j in range(i)]
    found = diagnostics.mean_absolute_cosine(jnp.float32(x))
    np.testing.assert_allclose(found, np.mean(pairs), rtol=1e-5)
    with pytest.raises(ValueError, match="holds one example"):
        diagnostics.mean_absolute_cosine(jnp.ones((1, 7)))


def test_activation_shift_in_deviations_of_the_first():
    x = jnp.float32(100 + 0.1 * RNG.normal(size=(3, 40, 2)))
    shift = diagnostics.activation_shift(x, 100 + 3 * (x - 100) + 0.2)
    deviation = np.float64(x).std((0, 1))
    expected = (2 * (np.float64(x).mean((0, 1)) - 100) + 0.2) / deviation
    np.testing.assert_allclose(shift.mean, expected, rtol=2e-3)
    np.testing.assert_allclose(shift.log_std, np.log([3, 3]), rtol=1e-3)
    with pytest.raises(ValueError, match="one number per feature"):
        diagnostics.activation_shift(x, jnp.ones((4, 5)))


@pytest.mark.parametrize(
    "measure",
    [
        diagnostics.activation_percentiles, diagnostics.dead_units, diagnostics.isometry_gap,
        diagnostics.effective_rank, diagnostics.participation_ratio,
        diagnostics.orthogonality_gap, diagnostics.mean_absolute_cosine,
    ],
)  # fmt: skip
def test_activations_must_be_a_batch(measure):
    with pytest.raises(ValueError, match=r"a batch of examples .*, got \(3,\)"):
        measure(jnp.ones(3))
    with pytest.raises(TypeError, match="int32"):
        measure(jnp.ones((3, 3), jnp.int32))
