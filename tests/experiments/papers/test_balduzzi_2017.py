"""Autocorrelation of gradients over a line of inputs."""

from functools import partial

import jax
import numpy as np

from experiments.papers.claims.balduzzi_2017 import autocorrelation, gradients
from jbn import Standard


def test_autocorrelation():
    noise = np.random.default_rng(0).normal(size=(40, 256))
    found = autocorrelation(noise + 5.0)
    np.testing.assert_allclose(found[:, 0], 1)
    assert abs(found[:, 1].mean()) < 0.05
    smooth = autocorrelation(np.sin(np.linspace(0, 6, 256))[None])
    assert smooth[0, 1] > 0.98


def test_batch_norm_makes_noise_of_plain_gradients():
    def neighbours(norm) -> float:
        run = jax.jit(partial(gradients, norm, None, 64))
        found = autocorrelation(np.stack([run(seed) for seed in range(4)]))
        return found[:, 1].mean()

    assert neighbours(None) > 0.6
    assert neighbours(Standard()) < 0.3
