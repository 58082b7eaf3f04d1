"""Residual branches beside the skip."""

from functools import partial

import jax
import numpy as np
import pytest

from experiments.papers.claims.de_2020 import residual_pass


def test_with_batch_norm_a_block_adds_one():
    blocks = jax.jit(partial(residual_pass, True, 128))(0)
    np.testing.assert_allclose(blocks.second_moment, 1 + np.arange(1, 33), rtol=0.15)
    share = np.asarray(blocks.branch / blocks.skip)
    np.testing.assert_allclose(share[15:] * np.arange(16, 33), 1, rtol=0.2)


def test_without_batch_norm_the_branch_keeps_its_share():
    blocks = jax.jit(partial(residual_pass, False, 128))(0)
    assert blocks.second_moment[-1] > 1e6
    share = np.asarray(blocks.branch / blocks.skip)
    assert share[-1] > 0.1
    assert blocks.skip[0] == pytest.approx(1.0, rel=0.05)
