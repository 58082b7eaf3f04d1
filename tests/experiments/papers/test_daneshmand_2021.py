"""When batch norm makes the examples of a batch orthogonal, and when it cannot."""

from functools import partial

import jax
import numpy as np
import pytest

from experiments.papers.claims.daneshmand_2021 import alike, gaps, pair_cosines
from jbn import Standard, Uncentered


def test_examples_come_in_alike():
    h = np.asarray(alike(jax.random.key(0), 4, 100_000))
    cosines = np.corrcoef(h)[np.triu_indices(4, 1)]
    np.testing.assert_allclose(cosines, 0.99, atol=1e-3)


def test_the_mean_decides():
    def plateau(variant) -> float:
        return float(jax.jit(partial(gaps, variant, False, 128))(0)[-20:].mean())

    floor = 1 / np.sqrt(4 * 3)
    assert plateau(Uncentered()) < 0.6 * floor
    assert plateau(Standard()) == pytest.approx(floor, rel=0.1)


def test_pairs_leave_the_end_they_start_from():
    with_norm = jax.jit(partial(pair_cosines, Uncentered(), True))(0)
    run = jax.jit(partial(pair_cosines, None, False))
    without = np.stack([run(seed) for seed in range(6)])
    assert with_norm[0] > 0.5
    assert with_norm[-20:].mean() < 0.2
    assert without[:, 0].mean() < 0.4
    assert without[:, -20:].mean() > 0.5
