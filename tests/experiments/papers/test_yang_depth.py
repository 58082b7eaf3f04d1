"""Deep networks with batch norm, trained."""

from functools import partial

import jax
import numpy as np

from experiments.papers.claims.yang_depth import REACH, Net, half_depth, standardised, train
from experiments.study.data import load


def test_inputs_are_standardised():
    x, labels = standardised(load("digits"))
    np.testing.assert_allclose([x.mean(), x.std()], [0, 1], atol=1e-4)
    assert len(x) == len(labels)


def test_the_reach_is_about_forty_layers():
    np.testing.assert_allclose(REACH, 40, rtol=0.02)


def test_the_depth_of_half_accuracy():
    depths = np.array([10, 20, 40])
    rows = np.array([[0.9, 0.7, 0.3], [0.9, 0.9, 0.9], [0.3, 0.2, 0.1], [0.9, 0.1, 0.1]])
    found = half_depth(depths, rows)
    np.testing.assert_allclose(found[:3], [np.sqrt(20 * 40), np.inf, 20])
    assert 10 < found[3] < 20


def test_the_shallow_train_and_the_deep_do_not():
    data = standardised(load("digits"))

    def accuracy(depth: int) -> float:
        run = jax.jit(partial(train, Net(), depth, 25))
        return float(run(*data, 0, np.float32(0.1))[-10:].mean())

    assert accuracy(3) > 0.5
    assert accuracy(60) < 0.3
