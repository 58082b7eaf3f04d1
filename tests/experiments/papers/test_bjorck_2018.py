"""Verdicts about learning rates, from accuracies made up for them."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from experiments.papers.claim import Check, Setting, at_least
from experiments.papers.claims import bjorck_2018
from experiments.papers.tools import training
from experiments.papers.tools.mlp import MLP
from experiments.papers.tools.training import Task, standardized
from experiments.study.data import load
from jbn import Standard


@pytest.mark.parametrize(
    ("accuracies", "largest"),
    [
        ([0.9, 0.9, 0.1, 0.1], -1),
        ([0.1, 0.9, 0.85, 0.1], 0),  # too slow at the smallest
        ([0.85, 0.2, 0.1, 0.9], -2),  # above a gap
        ([0.5, 0.85, 0.85, 0.85], 1),
        ([0.1, 0.2, 0.1, 0.1], np.nan),
    ],
)
def test_usable_is_the_largest_rate_below_the_first_gap(accuracies, largest):
    rates = np.array([0.01, 0.1, 1.0, 10.0])
    np.testing.assert_allclose(bjorck_2018.usable(rates, np.array([accuracies])), [largest])


def test_rates_are_finer_where_the_largest_lies():
    rates = bjorck_2018._rates(Setting())
    steps = np.diff(np.log10(rates))
    np.testing.assert_allclose(steps, [0.5] * 3 + [0.25] * 10, atol=1e-5)
    shared = np.log10(rates[bjorck_2018._shared_rates(Setting())])
    np.testing.assert_allclose(shared, np.arange(-2.5, 2.0, 0.5), atol=1e-5)


def outcome(monkeypatch, claim, with_norm):
    without = np.array([[0.9, 0.9, 0.1, 0.1]] * 3)
    found = {None: without, Standard(): np.array([with_norm] * 3)}
    monkeypatch.setattr(
        bjorck_2018, "_accuracies", lambda setting, depth, norm: found.get(norm, without)
    )
    return claim.measure(Setting(quick=True)).verdict


@pytest.mark.parametrize(
    ("with_norm", "tolerance", "speed"),
    [
        ([0.7, 0.9, 0.95, 0.1], "reproduced", "mixed"),
        ([0.9, 0.9, 0.1, 0.1], "refuted", "refuted"),
        ([0.91, 0.92, 0.9, 0.9], "reproduced", "reproduced"),
        ([0.7, 0.8, 0.1, 0.1], "refuted", "refuted"),
    ],
)
def test_verdicts(monkeypatch, with_norm, tolerance, speed):
    assert outcome(monkeypatch, bjorck_2018.TOLERANCE, with_norm) == tolerance
    assert outcome(monkeypatch, bjorck_2018.SPEED, with_norm) == speed


def test_the_tally_of_rates():
    gained = ([-0.2, -0.21], [-0.0001, 0.0001], [0.1, -0.3], [0.02, 0.021], [0.8, 0.8])
    checks = [Check("", np.array(g), at_least(0.005), "slogan") for g in gained]
    told = bjorck_2018.tally(checks, [False, False, False, False, True])
    assert told.startswith("won at 2 of 5 rates (1 of them because")
    assert "level at 1, lost at 1, undecided at 1;" in told


def test_only_batch_norm_learns_at_a_large_rate():
    images = standardized(load("digits"))

    def accuracy(norm):
        task = Task(MLP((20, 20), jax.nn.relu, jax.nn.initializers.he_normal(), norm), 32)
        run = jax.jit(lambda images, *row: training.trained_accuracy(task, 60, images, *row))
        return run(images, jnp.uint32(0), jnp.float32(3.0))

    assert accuracy(Standard()) > 0.7 > accuracy(None)
