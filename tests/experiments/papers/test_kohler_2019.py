"""Gradient descent on the Rayleigh quotient, and its bound."""

import jax
import numpy as np

from experiments.papers.claim import Setting
from experiments.papers.claims.kohler_2019 import RAYLEIGH, suboptimality


def test_reproduced_when_quick():
    outcome = RAYLEIGH.measure(Setting(quick=True))
    assert outcome.verdict == "reproduced"
    # Close enough to the bound that a wrong step size would show.
    assert np.mean(outcome.checks[1].measured) > 0.9


def test_the_minimum_is_the_minimum():
    with jax.enable_x64(True):
        above = np.asarray(jax.jit(suboptimality)(np.float64(5), 0))
    assert (above[:20] > 0).all()
    assert above[-1] < 1e-6 * above[0]
