"""chi_1, from theory and from the gradients of a random network."""

import jax
import numpy as np
import pytest

from experiments.papers.claims import schoenholz_2017
from experiments.papers.claims.schoenholz_2017 import deep_pass, tanh_chi
from experiments.papers.tools.deep import factor_per_layer
from experiments.papers.tools.spread import spread


def test_chi_of_tanh():
    assert tanh_chi(0.81) == pytest.approx(0.81, rel=1e-3)  # below one activations vanish
    assert tanh_chi(2.25) == pytest.approx(1.139, rel=1e-3)


def test_gradients_of_activations_see_the_variance_and_those_of_weights_do_not(monkeypatch):
    monkeypatch.setattr(schoenholz_2017, "_WIDTH", 150)
    seeds = np.arange(4, dtype=np.uint32)
    seen = spread(
        lambda seed, variance: deep_pass(jax.nn.relu, seed, variance),
        np.tile(seeds, 2),
        np.repeat(np.array([1.5, 2.5], np.float32), 4),
    )
    dz, dw = (factor_per_layer(logs, slice(10, 36)).reshape(2, 4).mean(1) for logs in seen)
    np.testing.assert_allclose(dz, [0.75, 1.25], rtol=0.06)
    np.testing.assert_allclose(dw, 1.0, rtol=0.08)
