"""Deep networks with batch norm, trained."""

from functools import partial

import jax
import numpy as np

from experiments.papers.claims.yang_depth import standardised, train
from experiments.study.data import load


def test_inputs_are_standardised():
    x, labels = standardised(load("digits"))
    np.testing.assert_allclose([x.mean(), x.std()], [0, 1], atol=1e-4)
    assert len(x) == len(labels)


def test_the_shallow_train_and_the_deep_do_not():
    data = standardised(load("digits"))

    def accuracy(depth: int) -> float:
        return float(jax.jit(partial(train, depth, 25))(*data, 0)[-10:].mean())

    assert accuracy(3) > 0.5
    assert accuracy(60) < 0.3
