"""The rate of explosion of any nonlinearity, from theory."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from experiments.papers.claims.yang_2019 import relu_rate
from experiments.papers.claims.yang_activations import limiting_rate


def test_the_limits_that_are_known():
    assert limiting_rate(lambda z: 3 * z + 1) == pytest.approx(1.0, rel=1e-5)
    assert limiting_rate(jax.nn.relu) == pytest.approx(np.pi / (np.pi - 1), rel=1e-3)
    assert limiting_rate(jax.nn.relu) == pytest.approx(relu_rate(10**6), rel=1e-3)
    # Var[sin z] = (1 - e^-2)/2, E[cos² z] = (1 + e^-2)/2.
    assert limiting_rate(jnp.sin) == pytest.approx(1 / np.tanh(1), rel=1e-4)
