"""Hidden weights at their own learning rate."""

from functools import partial

import jax
import numpy as np

from experiments.papers.claims.arora_2019 import decrease, train
from experiments.papers.tools.digits import digits, hidden_kernels, initial, network
from jbn import Standard


def test_the_rate_is_that_of_the_hidden_weights_alone():
    still = jax.jit(partial(train, Standard(), 20))(digits(100), 0, 0.0)
    start = initial(network((64, 64), Standard()), jax.random.key(0))
    np.testing.assert_allclose(still.norm, np.linalg.norm(hidden_kernels(start)[1]), rtol=1e-6)
    assert still.loss < 2.0  # the others learn


def test_a_large_rate_trains_with_batch_norm_alone():
    def run(norm):
        return jax.jit(partial(train, norm, 100))(digits(100), 0, 1000.0)

    with_norm, without = run(Standard()), run(None)
    assert with_norm.loss < 0.2
    assert with_norm.norm > 300
    assert not without.loss < 2.0


def test_the_power_by_which_a_gradient_falls():
    steps = np.arange(1, 401.0)
    restless = np.where(steps % 2 == 0, 1.0, 100.0)  # only the smallest so far counts
    np.testing.assert_allclose(decrease(restless * steps**-0.5), -0.5, rtol=1e-12)
