"""Residual branches beside the skip."""

from functools import partial

import jax
import numpy as np
import pytest

from experiments.papers.claims.de_2020 import residual_pass, share
from jbn import Standard


def test_with_batch_norm_a_block_adds_one():
    blocks = jax.jit(partial(residual_pass, Standard(), 128))(0)
    layers = np.arange(1, 33)
    np.testing.assert_allclose(blocks.second_moment, 1 + layers, rtol=0.15)
    np.testing.assert_allclose(blocks.branch / blocks.skip, share(layers), rtol=0.1)


def test_a_share_is_that_of_rectified_normals():
    h = np.maximum(np.random.default_rng(0).normal(size=1_000_000), 0) * np.sqrt(2)
    skip, shares = 1.0, []
    for _ in range(5):
        shares.append(h.var() / skip)
        skip += h.var()
    np.testing.assert_allclose(share(np.arange(1, 6)), shares, rtol=0.01)


def test_without_batch_norm_the_branch_keeps_its_share():
    blocks = jax.jit(partial(residual_pass, None, 128))(0)
    assert blocks.second_moment[-1] > 1e6
    shares = np.asarray(blocks.branch / blocks.skip)
    assert shares[-1] > 0.1
    assert blocks.skip[0] == pytest.approx(1.0, rel=0.05)
