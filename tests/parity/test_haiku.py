"""Haiku: the same inference from its debiased averages, and the same next step."""

import chex
import flax.linen as nn
import jax
import numpy as np
import pytest

import jbn.linen
from jbn.convert import from_haiku, model_from_haiku, model_to_haiku, to_haiku

hk = pytest.importorskip("haiku", reason="haiku (dm-haiku) is not installed")
DECAY = 0.8
NAME = "net/~/norm"


def network():
    class Net(hk.Module):
        def __init__(self):
            super().__init__(name="net")
            self.norm = hk.BatchNorm(True, True, DECAY, name="norm")

        def __call__(self, x, is_training):
            return self.norm(x, is_training)

    return hk.transform_with_state(lambda x, is_training: Net()(x, is_training))


def trained(batches, affine):
    net = network()
    params, state = net.init(jax.random.key(0), batches[0], is_training=True)
    assert list(params) == [NAME]
    params[NAME] = {
        name: np.reshape(v, params[NAME][name].shape)
        for name, v in zip(("scale", "offset"), affine)
    }
    for x in batches[1:-1]:
        _, state = net.apply(params, state, None, x, is_training=True)
    return net, params, state


def averages(state):
    return [np.ravel(state[f"{NAME}/~/{of}_ema"]["average"]) for of in ("mean", "var")]


def test_inference_and_the_next_step_are_equal(batches, affine):
    net, params, state = trained(batches, affine)
    x = batches[-1]
    gamma, stats = from_haiku(params, state)[NAME]
    y, _ = net.apply(params, state, None, x, is_training=False)
    np.testing.assert_allclose(jbn.normalize(x, *stats, *gamma), y, rtol=1e-6, atol=2e-6)

    counter = state[f"{NAME}/~/mean_ema"]["counter"]
    momentum = jbn.debiased_momentum(counter, DECAY)
    stats = jbn.update_running(stats, jbn.batch_moments(x), momentum=momentum)
    _, state = net.apply(params, state, None, x, is_training=True)
    for ours, theirs in zip(stats, averages(state)):
        np.testing.assert_allclose(ours, theirs, rtol=2e-6, atol=1e-6)


@pytest.mark.parametrize("young", [True, False])
def test_haiku_goes_on_from_what_is_written(batches, affine, young):
    net, params, state = trained(batches, affine)
    layers = from_haiku(params, state)
    counter = int(state[f"{NAME}/~/mean_ema"]["counter"])
    options = {"step": counter, "momentum": DECAY} if young else {}
    written, new = to_haiku(layers, ndim=batches[0].ndim, **options)
    x = batches[-1]
    expected, _ = net.apply(params, state, None, x, is_training=False)
    y, _ = net.apply(written, new, None, x, is_training=False)
    np.testing.assert_array_equal(y, expected)
    _, after = net.apply(written, new, None, x, is_training=True)
    momentum = jbn.debiased_momentum(counter, DECAY) if young else DECAY
    stats = jbn.update_running(layers[NAME][1], jbn.batch_moments(x), momentum=momentum)
    for ours, theirs in zip(stats, averages(after)):
        np.testing.assert_allclose(ours, theirs, rtol=2e-6, atol=1e-6)


class Linen(nn.Module):
    @nn.compact
    def __call__(self, x):
        x = nn.Conv(4, (2, 2), name="conv")(x)
        x = jbn.linen.BatchNorm(True, name="norm")(x)
        x = nn.Conv(8, (2, 2), feature_group_count=4, name="depthwise")(x)
        x = nn.LayerNorm(epsilon=1e-5, name="layer_norm")(x)
        return nn.Dense(5, name="linear")(x.reshape(len(x), -1))


def test_a_whole_model_there_and_back():
    def forward(x, is_training):
        x = hk.Conv2D(4, 2, name="conv")(x)
        x = hk.BatchNorm(True, True, DECAY, name="norm")(x, is_training)
        x = hk.DepthwiseConv2D(2, 2, name="depthwise")(x)
        x = hk.LayerNorm(-1, True, True)(x)
        return hk.Linear(5, name="linear")(x.reshape(len(x), -1))

    net = hk.transform_with_state(forward)
    rng = np.random.default_rng(0)
    x = rng.normal(size=(2, 3, 4, 3)).astype(np.float32)
    params, state = net.init(jax.random.key(0), x, True)
    params = jax.tree.map(lambda v: rng.uniform(0.5, 1.5, v.shape).astype(np.float32), params)
    _, state = net.apply(params, state, None, 2 * x + 1, True)

    start = jax.eval_shape(Linen().init, jax.random.key(0), x)
    variables, moved = model_from_haiku(params, state, into=start)
    assert all(here == there for here, there in moved.items())
    y, _ = net.apply(params, state, None, x, False)
    ours = jax.jit(Linen().apply)(variables, x)
    np.testing.assert_allclose(ours, y, rtol=0, atol=2e-6 * np.max(np.abs(y)))

    fresh = net.init(jax.random.key(1), x, True)
    (new_params, new_state), _ = model_to_haiku(variables, into=fresh)
    chex.assert_trees_all_equal(new_params, params)
    chex.assert_trees_all_equal_shapes_and_dtypes(new_state, state)
    old, new = (s["norm/~/mean_ema"]["average"] for s in (state, new_state))
    np.testing.assert_array_equal(new, old)
    _, state = net.apply(new_params, new_state, None, x, True)
    batch = jbn.batch_moments(nn.Conv(4, (2, 2)).apply({"params": variables["params"]["conv"]}, x))
    expected = DECAY * np.ravel(old) + (1 - DECAY) * batch.mean
    np.testing.assert_allclose(np.ravel(state["norm/~/mean_ema"]["average"]), expected, rtol=1e-5)


def test_a_transposed_convolution_is_refused():
    params = {"conv2_d_transpose": {"w": np.ones((2, 2, 3, 3), np.float32)}}
    into = {"params": {"up": {"kernel": np.ones((2, 2, 3, 3), np.float32)}}}
    with pytest.raises(ValueError, match=r"'conv2_d_transpose' to 'up' .* Haiku flips its window"):
        model_from_haiku(params, {}, into=into)
