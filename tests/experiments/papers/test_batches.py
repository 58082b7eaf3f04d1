"""Claims about batches and statistics: batch renormalization, ghost batches, PreciseBN, and what
batch norm costs in robustness."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from experiments.papers.claims import galloway_2019, ioffe_2017, wu_2021
from experiments.papers.tools import training
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
    ramp = ioffe_2017.Renormalization(200, 800)
    variant, none = (ramp.at(jnp.float32(on), jnp.int32(step), jax.random.key(0)) for on in (1, 0))
    assert (variant.r_max, variant.d_max) == bounds
    assert (none.r_max, none.d_max) == (1, 0)


def test_renormalization_of_no_strength_is_batch_norm(data):
    images = ioffe_2017.in_order(standardized(data))
    ramp = ioffe_2017.Renormalization(2, 8)

    @jax.jit
    def train(images, of_two_classes, strength):
        draw = partial(ioffe_2017.draw_batch, of_two_classes)
        losses = {}
        for name, norm_at in (("plain", None), ("renorm", partial(ramp.at, strength))):
            task = Task(MODEL, 32, draw, norm_at)
            state = training.begin(task, images, *ROW)
            state, losses[name] = training.advance(task, images, state, 30)
        return losses

    off, on, random = train(images, True, 0.0), train(images, True, 1.0), train(images, False, 0.0)
    np.testing.assert_allclose(off["renorm"], off["plain"], rtol=1e-3)
    assert (np.abs(on["renorm"] - on["plain"])[10:] > 1e-2).any()
    assert np.abs(random["plain"] - off["plain"]).max() > 0.1


def test_a_ghost_batch_is_normalised_in_groups_in_training_alone(data):
    images = standardized(data)

    def losses(norm):
        task = Task(MODEL, 64, norm_at=lambda step, key: norm)
        return jax.jit(
            lambda images: training.advance(task, images, training.begin(task, images, *ROW), 60)[1]
        )(images)

    assert losses(Ghost(4))[-20:].mean() > 1.2 * losses(Standard())[-20:].mean()


def test_the_running_average_lags_and_begins_elsewhere(data):
    run = jax.jit(partial(wu_2021.course, Task(MODEL, 32), 2))
    looks = run(unit_interval(data), *ROW)
    assert min(looks.population[0], looks.debiased[0]) > looks.running[0] + 0.02


def test_the_attack_is_worse_than_noise_of_its_size(monkeypatch, data):
    monkeypatch.setattr(galloway_2019, "NOISE", 0.1)
    monkeypatch.setattr(galloway_2019, "PERTURBATION", 0.1)
    task = Task(MODEL, 32)

    @jax.jit
    def run(images):
        state, _ = training.advance(task, images, training.begin(task, images, *ROW), 150)
        return galloway_2019.accuracies(task, images, state)

    seen = run(unit_interval(data))
    assert seen.clean > 0.85
    assert seen.clean - seen.noise < 0.05
    assert seen.adversarial < seen.noise - 0.1
