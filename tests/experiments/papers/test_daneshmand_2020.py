"""Ranks of activations in deep random networks."""

from functools import partial

import chex
import jax
import jax.numpy as jnp
import numpy as np

from experiments.papers.claims.daneshmand_2020 import random_layer, random_pass, through
from experiments.papers.tools.spread import spread
from jbn import Standard, Uncentered
from jbn.diagnostics import effective_rank, participation_ratio


def test_a_layer_normalises_over_examples():
    h, key = jax.random.normal(jax.random.key(0), (6, 5)), jax.random.key(1)
    z = np.asarray(h @ jax.random.normal(key, (5, 5)))
    for variant, kept in ((Uncentered(), z), (Standard(), z - z.mean(axis=0))):
        expected = kept / np.sqrt(np.mean(kept**2, axis=0))
        found = random_layer(variant, False, 5)(h, key)
        chex.assert_trees_all_close(found, expected / np.abs(expected).max(), rtol=1e-4)


def test_blocks_of_layers_are_those_layers():
    keys = jax.random.split(jax.random.key(0), 4)
    layer = random_layer(None, True, 5)
    h = jax.random.normal(jax.random.key(1), (6, 5))
    sums = through(layer, jnp.sum, 2, h, keys)
    for i, key in enumerate(keys):
        h = layer(h, key)
        if i % 2:
            chex.assert_trees_all_close(sums[i // 2], h.sum(), rtol=1e-5)


def test_the_rank_survives_with_batch_norm_alone():
    def rank(variant) -> np.ndarray:
        measure = partial(effective_rank, squared=True)
        run = partial(random_pass, variant, False, measure, 32, 300, 300)
        return spread(run, np.arange(4, dtype=np.uint32))[:, -1]

    assert rank(Uncentered()).min() > 4
    assert rank(None).mean() < 1.5


def test_r_grows_at_least_as_the_root_of_the_width():
    def r(width: int) -> float:
        run = partial(random_pass, Uncentered(), False, participation_ratio, width, 80, 1)
        return spread(run, np.arange(4, dtype=np.uint32))[:, 40:].mean()

    assert 2 < r(64) / r(16) < 3  # in proportion to the width it would be 4
