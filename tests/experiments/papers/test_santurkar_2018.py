"""Theorem 4.1, noise that differs by layer, and the probes of a short run."""

from functools import partial

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from experiments.papers.claim import Setting
from experiments.papers.claims import santurkar_2018, santurkar_2018_shift
from experiments.papers.tools.training import begin, next_loss, standardized
from experiments.study.data import load
from jbn import Standard, batch_norm
from jbn.diagnostics import AlongGradient


@pytest.fixture(scope="module")
def images():
    return standardized(load("digits"))


ROW = (np.uint32(0), np.float32(0.1))


def test_the_theorem_is_exact():
    assert santurkar_2018.IDENTITY.measure(Setting(quick=True)).verdict == "reproduced"


def test_the_theorem_fails_with_epsilon(monkeypatch):
    with_epsilon = lambda *args, epsilon: batch_norm(*args, epsilon=1.0)  # noqa: E731
    monkeypatch.setattr(santurkar_2018, "batch_norm", with_epsilon)
    assert santurkar_2018.IDENTITY.measure(Setting(quick=True)).verdict == "not reproduced"


def test_probes_of_a_short_run(images):
    task = santurkar_2018.relu_task(2, Standard())
    run = jax.jit(partial(santurkar_2018.probes, task, 20))
    seen = run(images, *ROW)
    assert seen.loss.shape == (2, 6)
    assert seen.loss_variation.shape == (2,)
    beta = santurkar_2018.local_beta(jax.device_get(seen))
    assert (beta <= np.asarray(seen.beta_smoothness) * 1.0001).all()
    assert (beta > 0).all()


@pytest.mark.parametrize(("factor", "verdict"), [(10.0, "reproduced"), (0.1, "not reproduced")])
def test_verdicts(monkeypatch, factor, verdict):
    def made_up(size):
        each = size * np.ones((3, 1, 4))
        distance = each[..., None] * np.ones(6)
        return AlongGradient(distance, distance, each, each, each, np.ones_like(each))

    found = {3: {"without": made_up(factor), "with batch norm": made_up(1.0)}}
    monkeypatch.setattr(santurkar_2018, "_probed", lambda setting: found)
    for claim in (santurkar_2018.VARIATION, santurkar_2018.SMOOTHNESS):
        assert claim.measure(Setting(quick=True)).verdict == verdict


def test_noise_differs_between_layers_and_between_steps(images):
    task = santurkar_2018_shift.noisy_task(2)
    state = begin(task, images, *map(jnp.asarray, ROW))
    later = state._replace(step=state.step + 1)
    quiet = santurkar_2018.relu_task(2, Standard())

    def noise(task, state):
        """What noise adds to the mean of each unit, once beta is 0."""
        inputs = next_loss(task, images, state)(state.params)[1][1]
        return [jnp.mean(z, axis=0) for z in inputs]

    first, second = noise(task, state)
    chex.assert_trees_all_close(noise(quiet, state), [jnp.zeros(100)] * 2, atol=1e-5)
    assert 0.2 < jnp.std(first) < 0.4  # that of U(-0.5, 0.5) is 0.29
    assert abs(jnp.corrcoef(first, second)[0, 1]) < 0.4
    assert abs(jnp.corrcoef(first, noise(task, later)[0])[0, 1]) < 0.4


def test_shifts_of_a_short_run(images):
    task = santurkar_2018.relu_task(2, Standard())
    seen = jax.jit(partial(santurkar_2018_shift.shifts, task, 1))(images, *ROW)
    assert seen.cosine.shape == (1, 2)
    # No layer lies below the first.
    chex.assert_trees_all_close(seen.cosine[0, 0], 1.0, atol=1e-5)
    assert seen.cosine[0, 1] < 0.999
    assert seen.distance[0, 1] > 0
