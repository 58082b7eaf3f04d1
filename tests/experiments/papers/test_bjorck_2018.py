"""Verdicts about learning rates, from accuracies made up for them."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from experiments.papers.claim import Setting
from experiments.papers.claims import bjorck_2018
from experiments.papers.tools.mlp import MLP
from experiments.papers.tools.training import Task, standardized
from experiments.study.data import load
from jbn import Standard


def test_usable_is_the_largest_rate_that_learns():
    rates = np.array([0.01, 0.1, 1.0])
    accuracies = np.array([[0.9, 0.9, 0.1], [0.85, 0.2, 0.1], [0.5, 0.85, 0.85], [0.1, 0.1, 0.1]])
    np.testing.assert_allclose(bjorck_2018.usable(rates, accuracies), [-1, -2, 0, np.nan])


def outcome(monkeypatch, claim, with_norm):
    without = np.array([[0.9, 0.9, 0.1, 0.1]] * 3)
    found = {3: {"without": without, "with batch norm": np.array([with_norm] * 3)}}
    monkeypatch.setattr(bjorck_2018, "_accuracies", lambda setting: found)
    return claim.measure(Setting(quick=True)).verdict


@pytest.mark.parametrize(
    ("with_norm", "tolerance", "speed"),
    [
        ([0.7, 0.9, 0.95, 0.1], "reproduced", "fragile"),
        ([0.9, 0.9, 0.1, 0.1], "not reproduced", "reproduced"),
        ([0.7, 0.8, 0.1, 0.1], "not reproduced", "not reproduced"),
    ],
)
def test_verdicts(monkeypatch, with_norm, tolerance, speed):
    assert outcome(monkeypatch, bjorck_2018.TOLERANCE, with_norm) == tolerance
    assert outcome(monkeypatch, bjorck_2018.SPEED, with_norm) == speed


def test_only_batch_norm_learns_at_a_large_rate():
    images = standardized(load("digits"))

    def accuracy(norm):
        task = Task(MLP((20, 20), jax.nn.relu, jax.nn.initializers.he_normal(), norm), 32)
        run = jax.jit(lambda images, *row: bjorck_2018.trained_accuracy(task, 60, images, *row))
        return run(images, jnp.uint32(0), jnp.float32(3.0))

    assert accuracy(Standard()) > 0.7 > accuracy(None)
