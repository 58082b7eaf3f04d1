"""The trainer of the claims about MNIST, on digits."""

from functools import partial

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from experiments.papers.claim import Setting, once
from experiments.papers.tools import training
from experiments.papers.tools.mlp import MLP
from experiments.papers.tools.spread import combinations
from experiments.papers.tools.training import Task
from experiments.study.data import load
from jbn import Standard

HE = jax.nn.initializers.he_normal()
PLAIN = Task(MLP((16,), jax.nn.relu, HE), batch_size=32)
NORMED = Task(MLP((16,), jax.nn.relu, HE, Standard()), batch_size=32)


@pytest.fixture(scope="module")
def data():
    return load("digits")


def begun(task, images, seed=0, learning_rate=0.5):
    return training.begin(task, images, jnp.uint32(seed), jnp.float32(learning_rate))


def test_pixels(data):
    x = training.pixels(training.standardized(data), data.train_images)
    chex.assert_trees_all_close((jnp.mean(x), jnp.std(x)), (0.0, 1.0), atol=1e-5)
    x = training.pixels(training.unit_interval(data), data.train_images)
    assert (x.min(), x.max()) == (0, 1)


def test_a_step_is_sgd_on_the_next_batch(data):
    images = training.unit_interval(data)
    state = begun(PLAIN, images)
    loss_fn = training.next_loss(PLAIN, images, state)
    gradient = jax.grad(lambda params: loss_fn(params)[0])(state.params)
    expected = jax.tree.map(lambda w, g: w - 0.5 * g, state.params, gradient)
    after, seen = training.step(PLAIN, images, state)
    chex.assert_trees_all_close(after.params, expected, rtol=1e-6)
    chex.assert_trees_all_close(seen.loss, loss_fn(state.params)[0])
    assert after.step == 1
    # The next batch is another one.
    assert training.next_loss(PLAIN, images, after)(state.params)[0] != seen.loss


def test_decay_shrinks_kernels_and_nothing_else(data):
    images = training.unit_interval(data)
    state = begun(NORMED, images)
    plain, decayed = (
        training.step(NORMED._replace(weight_decay=decay), images, state)[0].params
        for decay in (0.0, 0.2)
    )
    factor = {"kernel": -0.5 * 0.2, "bias": 0.0, "scale": 0.0}
    expected = {
        layer: {name: plain[layer][name] + factor[name] * w for name, w in arrays.items()}
        for layer, arrays in state.params.items()
    }
    chex.assert_trees_all_close(decayed, expected, rtol=1e-5, atol=1e-7)


def test_what_is_held_out_is_not_trained_on(data):
    images = training.unit_interval(data)
    held = training.hold_out(images, 100)
    np.testing.assert_array_equal(np.concatenate([held.train, held.test]), images.train)
    labels = np.concatenate([held.train_labels, held.test_labels])
    np.testing.assert_array_equal(labels, images.train_labels)
    assert len(held.test) == 100


def test_tasks_begin_alike_and_seeds_do_not(data):
    images = training.unit_interval(data)
    kernel = begun(PLAIN, images).params["hidden_1"]["kernel"]
    chex.assert_trees_all_equal(kernel, begun(NORMED, images).params["hidden_1"]["kernel"])
    other = begun(PLAIN, images, seed=1).params["hidden_1"]["kernel"]
    assert not np.allclose(kernel, other)


def test_it_learns(data):
    images = training.standardized(data)

    @jax.jit
    def run(images):
        state, losses = training.advance(NORMED, images, begun(NORMED, images), 100)
        state = training.with_population_stats(NORMED, images, state)
        blank = partial(training.accuracy, NORMED, images, state, lambda x, label, key: 0 * x)
        return losses, training.accuracy(NORMED, images, state), blank()

    losses, accuracy, blank = run(images)
    assert losses[-1] < losses[0] / 2
    assert accuracy > 0.85
    assert blank < 0.2


def test_population_stats_are_those_of_the_training_set(data):
    images = training.unit_interval(data)
    state = training.with_population_stats(NORMED, images, begun(NORMED, images))
    z = data.train_images / 16 @ np.asarray(state.params["hidden_1"]["kernel"]).T
    stats = state.batch_stats["norm_1"]
    chex.assert_trees_all_close(stats["mean"], z.mean(axis=0), rtol=1e-4, atol=1e-5)
    chex.assert_trees_all_close(stats["var"], z.var(axis=0), rtol=1e-4)


def test_combinations():
    seeds, rates = combinations(np.arange(2), np.array([0.1, 0.2, 0.3]))
    np.testing.assert_array_equal(seeds, [0, 0, 0, 1, 1, 1])
    np.testing.assert_array_equal(rates.reshape(2, 3)[1], [0.1, 0.2, 0.3])


def test_once_keeps_every_argument_of_one_setting():
    asked = []
    measure = once(lambda setting, name: asked.append(name) or len(asked))
    found = [measure(Setting(first_seed=s), n) for s, n in ((0, "a"), (0, "b"), (0, "a"), (1, "a"))]
    assert found == [1, 2, 1, 3]
    assert measure(Setting(), "a") == 4  # only the last setting's


def test_once_measures_again_for_another_setting(data):
    asked = []
    measure = once(lambda setting: asked.append(setting) or len(asked))
    assert measure(Setting(images=data)) == measure(Setting(images=data)) == 1
    assert measure(Setting(images=data, first_seed=1)) == 2
    assert measure(Setting(images=data, quick=True)) == 3
    assert measure(Setting(images=data._replace(brightest=1.0), quick=True)) == 4


def test_once_keeps_what_was_measured_with_each_norm():
    asked = []
    measure = once(lambda setting, norm: asked.append(norm) or norm)
    for norm in ("none", "layer", "none"):
        assert measure(Setting(), norm) == norm
    assert asked == ["none", "layer"]
    measure(Setting(first_seed=1), "none")
    measure(Setting(), "none")
    assert asked == ["none", "layer", "none", "none"]
