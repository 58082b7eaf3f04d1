"""Hidden weights at their own learning rate."""

from functools import partial

import jax
import numpy as np

from experiments.papers.claims.arora_2019 import train
from experiments.papers.tools.digits import digits, hidden_kernels, initial, network


def test_the_rate_is_that_of_the_hidden_weights_alone():
    still = jax.jit(partial(train, True, 20))(digits(100), 0, 0.0)
    start = initial(network((64, 64), True), jax.random.key(0))
    np.testing.assert_allclose(still.norm, np.linalg.norm(hidden_kernels(start)[1]), rtol=1e-6)
    assert still.loss < 2.0  # the others learn


def test_a_large_rate_trains_with_batch_norm_alone():
    def run(norm: bool):
        return jax.jit(partial(train, norm, 100))(digits(100), 0, 1000.0)

    with_norm, without = run(True), run(False)
    assert with_norm.loss < 0.2
    assert with_norm.norm > 300
    assert not without.loss < 2.0
