"""Claims about batches and statistics: batch renormalization, ghost batches, PreciseBN, and what
batch norm costs in robustness."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from experiments.papers.claims import galloway_2019, hoffer_2017, ioffe_2017, wu_2021
from experiments.papers.tools.mlp import MLP
from experiments.papers.tools.training import Task, standardized, unit_interval
from experiments.study.data import load
from jbn import Ghost, Standard

MODEL = MLP((20, 20), jax.nn.relu, jax.nn.initializers.he_normal(), Standard())
ROW = (np.uint32(0), np.float32(0.1))


@pytest.fixture(scope="module")
def data():
    return load("digits")


def test_two_classes_half_of_each(data):
    images = ioffe_2017.in_order(standardized(data))
    pairs = set()
    for seed in range(8):
        drawn = ioffe_2017.two_classes(images, jax.random.key(seed), 32)
        labels, counts = np.unique(images.train_labels[drawn], return_counts=True)
        assert len(labels) == 2
        assert (counts == 16).all()
        assert len(set(np.asarray(drawn).tolist())) > 20
        pairs.add(tuple(labels.tolist()))
    assert len(pairs) > 4


@pytest.mark.parametrize(("step", "bounds"), [(0, (1, 0)), (500, (2, 2.5)), (2000, (3, 5))])
def test_the_bounds_of_renormalization_widen(step, bounds):
    variant = ioffe_2017.ramped(200, 800, jnp.int32(step), jax.random.key(0))
    assert (variant.r_max, variant.d_max) == bounds


def test_renormalization_trains(data):
    images = ioffe_2017.in_order(standardized(data))
    task = Task(MODEL, 32, ioffe_2017.two_classes, partial(ioffe_2017.ramped, 20, 80))
    run = partial(ioffe_2017.trained_accuracy, task, 300)
    assert jax.jit(run)(images, *ROW) > 0.6


def test_ghost_batches_raise_the_training_loss(data):
    def loss(variant):
        task = Task(MODEL, 64, norm_at=lambda step, key: variant)
        return jax.jit(partial(hoffer_2017.trained, task, 60))(standardized(data), *ROW)[1]

    assert loss(Ghost(4)) > 1.2 * loss(Standard())


def test_the_weight_of_the_initial_statistics(data):
    run = jax.jit(partial(wu_2021.course, Task(MODEL, 32), 2))
    average, population, left = run(unit_interval(data), *ROW)
    np.testing.assert_allclose(left, [0.99**50, 0.99**100], rtol=1e-4)
    assert population[0] > average[0] + 0.02


def test_the_attack_is_worse_than_noise_of_its_size(monkeypatch, data):
    monkeypatch.setattr(galloway_2019, "NOISE", 0.1)
    monkeypatch.setattr(galloway_2019, "PERTURBATION", 0.1)
    run = jax.jit(partial(galloway_2019.accuracies, Task(MODEL, 32), 150))
    seen = run(unit_interval(data), *ROW)
    assert seen.clean > 0.85
    assert seen.clean - seen.noise < 0.05
    assert seen.adversarial < seen.noise - 0.1
