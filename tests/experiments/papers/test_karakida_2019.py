"""The largest eigenvalue of the Fisher information over the width."""

from functools import partial

import jax
import numpy as np

from experiments.papers.claims.karakida_2019 import sharpest


def test_subtracting_the_mean_takes_the_large_eigenvalue_away():
    def mean(*net: bool) -> float:
        run = jax.jit(partial(sharpest, *net, 128))
        return float(np.mean([run(seed) for seed in range(3)]))

    assert mean(False, True) < 0.5 * mean(False, False)
