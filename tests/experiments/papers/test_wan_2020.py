"""The angle at which weight decay and gradients balance."""

from functools import partial

import jax
import numpy as np
import pytest

from experiments.papers.claims.wan_2020 import _Case, _Size, equilibrium_angle, train
from experiments.papers.tools.digits import digits
from jbn import Standard


def test_the_formula():
    assert equilibrium_angle(0.5, 5e-3, 0.0) == pytest.approx(0.0707107, rel=1e-5)
    assert equilibrium_angle(0.1, 2e-3, 0.9) == pytest.approx(0.0145095, rel=1e-5)


def test_training_settles_there():
    training = jax.jit(partial(train, Standard(), _Size(100, 64), 12))(
        digits(), 0, 0.5, 1e-2, 0.0, 3.0
    )
    angles = np.sqrt(training.square_angle)
    assert angles[-5:].mean() == pytest.approx(0.1, rel=0.06)
    assert angles[0] < 0.08  # not from the start, at three times the initial weights


def test_momentum_and_decay_act():
    run = jax.jit(partial(train, Standard(), _Size(100, 64), 1))
    plain, decayed, heavy = (
        run(digits(200), 0, 0.1, *rates, 1.0) for rates in ((0.0, 0.0), (0.5, 0.0), (0.0, 0.9))
    )
    assert decayed.square_angle > 2 * plain.square_angle
    assert heavy.square_angle > 2 * plain.square_angle


def test_a_case_knows_its_angle_whatever_it_began_with():
    case = _Case(0.1, 2e-3, 0.9, init_scale=3.0)
    assert case.angle == equilibrium_angle(0.1, 2e-3, 0.9)
    assert str(case) == "eta 0.1, lambda 0.002, alpha 0.9, initial weights x 3"
