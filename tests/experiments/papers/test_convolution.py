"""A convolution as a matrix product, and networks of them and of residual blocks."""

import jax
import numpy as np
import pytest

from experiments.papers.claims.bjorck_2018_convolutional import largest_rate
from experiments.papers.claims.de_2020_training import Arm, residual_task
from experiments.papers.tools.convolution import CNN, Conv
from experiments.papers.tools.mlp import in_training
from jbn import Standard


@pytest.mark.parametrize("stride", [1, 2])
def test_it_is_a_convolution(stride):
    x = np.random.default_rng(0).normal(size=(2, 6, 6, 3)).astype(np.float32)
    layer = Conv(4, jax.nn.initializers.he_normal(), stride)
    y, variables = layer.init_with_output(jax.random.key(0), x)
    kernel = variables["params"]["kernel"].reshape(3, 3, 3, 4)
    padded = ((1, 1), (1, 1))
    layout = ("NHWC", "HWIO", "NHWC")
    expected = jax.lax.conv_general_dilated(
        x, kernel, (1, 1), padded, dimension_numbers=layout, precision="highest"
    )
    np.testing.assert_allclose(y, expected[:, ::stride, ::stride], rtol=1e-4, atol=1e-5)


def test_a_network_halves_its_pixels_and_normalises_each_channel():
    model = CNN((4, 8), jax.nn.relu, jax.nn.initializers.he_normal(), Standard())
    x = jax.random.normal(jax.random.key(1), (5, 36))
    variables = model.init(jax.random.key(0), x, use_running_average=False)
    scores, inputs, _ = in_training(model, variables["params"], variables["batch_stats"], x)
    assert [z.shape for z in inputs] == [(5, 6, 6, 4), (5, 3, 3, 8)]
    assert scores.shape == (5, 10)
    np.testing.assert_allclose(inputs[1].mean(axis=(0, 1, 2)), 0, atol=1e-5)
    np.testing.assert_allclose(inputs[1].std(axis=(0, 1, 2)), 1, rtol=1e-2)


def test_blocks_add_to_the_skip_unless_their_scalars_are_zero():
    x = jax.random.normal(jax.random.key(1), (8, 64))

    def scores(arm, blocks):
        model = residual_task(arm, blocks).model
        variables = model.init(jax.random.key(0), x, use_running_average=False)
        params = variables["params"]
        assert params["blocks"]["hidden_1"]["kernel"].shape == (blocks, 64, 64)
        return params, in_training(model, params, variables.get("batch_stats", {}), x)[0]

    params, without = scores(Arm(None, 0.0), 3)
    h = x @ params["input"]["kernel"].T
    output = params["output"]["kernel"]
    np.testing.assert_allclose(without, jax.nn.relu(h) @ output.T, rtol=1e-4, atol=1e-4)
    params, added = scores(Arm(None), 3)
    for kernel in params["blocks"]["hidden_1"]["kernel"]:
        h = h + jax.nn.relu(h) @ kernel.T
    np.testing.assert_allclose(added, jax.nn.relu(h) @ output.T, rtol=1e-3, atol=1e-3)


def test_the_largest_rate_that_learns():
    rates = np.array([0.1, 1.0, 10.0])
    found = largest_rate(
        rates, np.array([[0.9, 0.8, 0.1], [0.9, 0.1, 0.85], [0.1, 0.1, np.nan]]), 0.8
    )
    np.testing.assert_allclose(found[:2], [0, 1])
    assert np.isnan(found[2])
