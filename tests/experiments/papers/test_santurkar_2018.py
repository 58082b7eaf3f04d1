"""The backward formula, probes that know no scale, noise that differs by layer, kernels' shift."""

from functools import partial

import chex
import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from experiments.papers.claim import Setting
from experiments.papers.claims import (
    santurkar_2018,
    santurkar_2018_noise,
    santurkar_2018_shift,
)
from experiments.papers.claims.santurkar_2018 import Probes
from experiments.papers.tools.training import begin, next_loss, relu_task, standardized
from experiments.study.data import load
from jbn import Standard


@pytest.fixture(scope="module")
def images():
    return jax.tree.map(jnp.asarray, standardized(load("digits")))


ROW = (np.uint32(0), np.float32(0.1))


def test_the_backward_formula_is_exact():
    assert santurkar_2018.BACKWARD.measure(Setting(quick=True)).verdict == "reproduced"


def test_the_backward_formula_fails_with_epsilon(monkeypatch):
    exact = santurkar_2018.as_function
    monkeypatch.setattr(santurkar_2018, "as_function", partial(exact, epsilon=1.0))
    assert santurkar_2018.BACKWARD.measure(Setting(quick=True)).verdict == "refuted"


def test_a_probe_of_a_parabola():
    curvature, rate = 3.0, 0.01
    start = {"output": {"kernel": jnp.array([[2.0, -1.0]])}}
    loss = lambda p: curvature / 2 * jnp.sum(jnp.square(p["output"]["kernel"]))  # noqa: E731
    seen = santurkar_2018.probe(loss, start, jnp.float32(rate))
    np.testing.assert_allclose([seen.local_beta, seen.beta], curvature, rtol=1e-3)
    np.testing.assert_allclose(seen.change, 4 * rate * curvature, rtol=1e-4)
    losses = curvature / 2 * 5 * (1 - np.array([0.5, 4]) * rate * curvature) ** 2
    np.testing.assert_allclose(seen.variation, losses[0] - losses[1], rtol=1e-4)


def test_a_probe_knows_no_scale_of_the_kernels_before_batch_norm(images):
    task = relu_task(2, Standard())
    state = begin(task, images, *map(jnp.asarray, ROW))
    hidden = lambda path: path[0].key.startswith("hidden_")  # noqa: E731
    smaller = jax.tree_util.tree_map_with_path(
        lambda path, leaf: 0.2 * leaf if hidden(path) else leaf, state.params
    )
    loss_fn = next_loss(task, images, state)
    look = jax.jit(lambda w: santurkar_2018.probe(lambda p: loss_fn(p)[0], w, jnp.float32(0.1)))
    chex.assert_trees_all_close(look(smaller), look(state.params), rtol=0.01)
    assert look(state.params).change > 0.1


@pytest.mark.parametrize(("factor", "verdict"), [(10.0, "reproduced"), (1.0, "refuted")])
def test_verdicts(monkeypatch, factor, verdict):
    def made_up(size):
        return {3: Probes(*4 * [size * np.ones((3, 1, 4))])}

    found = [made_up(factor), made_up(1.0)]
    monkeypatch.setattr(santurkar_2018, "_probed", lambda setting, norms: found)
    for claim in (santurkar_2018.VARIATION, santurkar_2018.SMOOTHNESS):
        assert claim.measure(Setting(quick=True)).verdict == verdict


@pytest.mark.parametrize("norm", [Standard(), nn.LayerNorm, None], ids=["batch", "layer", "none"])
def test_noise_differs_between_layers_and_between_steps(images, norm):
    task, quiet = santurkar_2018_noise.noisy_task(2, norm), relu_task(2, norm)
    state = begin(task, images, *map(jnp.asarray, ROW))
    later = state._replace(step=state.step + 1)

    @partial(jax.jit, static_argnums=0)
    def inputs(noisy, state):
        seen = next_loss(task if noisy else quiet, images, state)(state.params)[1][1]
        return jnp.stack([jnp.mean(z, axis=0) for z in seen])

    # Of the first layer, where nothing but noise differs; it stretches by 1 to 1.25.
    first, without = inputs(True, state), inputs(False, state)
    added = first[0] - 1.125 * without[0]
    assert 0.2 < jnp.std(added) < 0.4  # that of U(-0.5, 0.5) is 0.29
    if norm == Standard():
        assert abs(jnp.corrcoef(first[0], first[1])[0, 1]) < 0.4
        assert abs(jnp.corrcoef(first[0], inputs(True, later)[0])[0, 1]) < 0.4


def test_a_rate_is_chosen_on_validation_and_not_on_the_test_set():
    validation = np.array([[0.5, 0.9, 0.7], [0.6, 0.8, 0.9]])
    test = np.array([[0.1, 0.2, 0.9], [0.1, 0.3, 0.9]])
    best, found = santurkar_2018_noise.chosen(
        santurkar_2018_noise.Ended(validation, test, 2 * test)
    )
    assert best == 1
    np.testing.assert_array_equal(found.test, [0.2, 0.3])
    np.testing.assert_array_equal(found.drift, [0.4, 0.6])


def test_shifts_of_a_short_run(images):
    run = partial(santurkar_2018_shift.shifts, relu_task(2, Standard()), 1)
    look = jax.jit(lambda share: run(share, images, *ROW))
    seen, small = look(1.0), look(0.01)
    # No layer lies below the first.
    chex.assert_trees_all_close(seen.cosine[0, 0], 1.0, atol=1e-5)
    assert seen.cosine[0, 1] < 0.999
    # A hundredth of the step shifts a hundredth, to first order.
    assert 30 < seen.distance[0, 1] / small.distance[0, 1] < 300
