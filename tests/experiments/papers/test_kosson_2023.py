"""AdamW's equilibrium angle, and that only hidden kernels decay."""

from functools import partial

import jax
import numpy as np
import pytest

from experiments.papers.claims.kosson_2023 import equilibrium_angle, train
from experiments.papers.tools.digits import digits
from jbn import Standard


def test_the_formula_is_that_of_a_random_walk():
    """Independent unit updates, averaged as Adam does, on a weight that decays."""
    rate, decay, momentum, size = 0.01, 1.0, 0.5, 400
    rng = np.random.default_rng(0)
    w, average, angles = rng.normal(size=size), np.zeros(size), []
    for _ in range(3000):
        average = momentum * average + (1 - momentum) * rng.choice([-1.0, 1.0], size)
        moved = w - rate * (average + decay * w)
        # Orthogonal to the weights, as before batch norm.
        cosine = w @ moved / np.linalg.norm(w) / np.linalg.norm(moved)
        angles.append(np.arccos(min(cosine, 1.0)))
        w = moved
    found = np.sqrt(np.mean(np.square(angles[1000:])))
    assert found == pytest.approx(equilibrium_angle(rate, decay, momentum), rel=0.03)
    assert equilibrium_angle(3e-3, 1, 0.9) == pytest.approx(0.0177705, rel=1e-4)


def test_decay_and_momentum_act():
    def run(decoupled, *rates):
        squares = jax.jit(partial(train, Standard(), decoupled, 1))(digits(200), 0, *rates)
        return float(np.mean(squares))

    plain = run(True, 3e-3, 0.0, 0.0)
    assert run(True, 3e-3, 0.0, 0.9) < 0.5 * plain
    assert run(True, 3e-3, 30.0, 0.0) > 2 * plain  # the weights are smaller
