"""The largest eigenvalue of the Fisher information over the width."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from experiments.papers.claims.karakida_2019 import Net, random_network, sharpest
from jbn import Standard


def test_the_eigenvalue_is_that_of_the_jacobian():
    net = Net(Standard(), centred=True)
    outputs, kernels = random_network(net, 12, jax.random.key(0))
    jacobian = jax.jit(jax.jacrev(outputs))(kernels)
    rows = np.concatenate([np.asarray(j, np.float64).reshape(12, -1) for j in jacobian], axis=1)
    largest = np.linalg.eigvalsh(rows @ rows.T / 12)[-1]
    assert jax.jit(partial(sharpest, net, 12))(0) == pytest.approx(largest, rel=0.02)
    assert jnp.mean(outputs(kernels)) == pytest.approx(0.0, abs=1e-6)


def test_subtracting_the_mean_takes_the_large_eigenvalue_away():
    def mean(net: Net) -> float:
        run = jax.jit(partial(sharpest, net, 64))
        return float(np.mean([run(seed) for seed in range(3)]))

    assert mean(Net(centred=True)) < 0.5 * mean(Net())
