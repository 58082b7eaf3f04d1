"""Networks matched by training loss, and images that stay images."""

import chex
import jax
import jax.numpy as jnp
import numpy as np

from experiments.papers.claims import galloway_2019
from experiments.papers.claims.galloway_2019 import fast_gradient_sign, train, with_noise
from experiments.papers.tools import training
from experiments.papers.tools.training import relu_task, unit_interval
from experiments.study.data import load


def test_changed_images_keep_the_range_of_pixels():
    x = jnp.array([0.0, 0.02, 0.5, 1.0])
    np.testing.assert_allclose(
        fast_gradient_sign(x, jnp.array([-3.0, 1e-9, 0.0, 2.0])), [0.0, 0.07, 0.5, 1.0], rtol=1e-6
    )
    noisy = with_noise(jnp.full(10_000, 0.5), jax.random.key(0))
    assert (noisy.min(), noisy.max()) == (0, 1)
    np.testing.assert_allclose(jnp.mean((noisy == 0) | (noisy == 1)), 0.317, atol=0.02)


def test_the_matched_network_is_the_first_that_reaches_the_loss():
    images = unit_interval(load("digits"))
    task = relu_task(1, None, width=16, batch_size=32)
    seed, rate = jnp.uint32(0), jnp.float32(0.1)

    @jax.jit
    def run(images):
        after, losses, state = [], [], training.begin(task, images, seed, rate)
        for _ in range(3):
            state, seen = training.advance(task, images, state, galloway_2019._WINDOW)
            after.append(state)
            losses.append(jnp.mean(seen))
        return after, losses

    after, losses = run(images)
    assert losses[0] > losses[1] > losses[2]
    at = jax.jit(lambda images, target: train(task, 3, target, images, seed, rate))
    last, matched, reached = at(images, losses[1] * 1.001)
    assert reached
    chex.assert_trees_all_close((matched, last), (after[1], after[2]), rtol=1e-4, atol=1e-5)
    assert not at(images, 0.0)[2]
