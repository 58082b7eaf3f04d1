"""Convolutions with features last: the same numbers, and none in another order."""

import re

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from experiments.study.convolutions import features_last

KEY = jax.random.key(0)


def orders(function, *arguments):
    """The order of axes in each convolution of the program."""
    text = jax.jit(function).lower(*arguments).as_text()
    lines = [line for line in text.splitlines() if "stablehlo.convolution" in line]
    return {re.search(r"dim_numbers = (\S.*?), window", line)[1] for line in lines}


@pytest.mark.parametrize(
    ("shape", "kernel", "names", "options"),
    [
        ((4, 9, 3), (3, 3, 5), ("NHC", "HIO", "NHC"), {"window_strides": (2,)}),
        ((4, 3, 8, 7), (5, 3, 3, 2), ("NCHW", "OIHW", "NCHW"), {"window_strides": (2, 1)}),
        ((8, 4, 7, 3), (3, 2, 3, 5), ("HNWC", "HWIO", "CNHW"), {"rhs_dilation": (2, 1)}),
        ((2, 5, 6, 4, 3), (2, 3, 2, 3, 4), ("NHWDC", "HWDIO", "NCHWD"), {"padding": "VALID"}),
    ],
)
def test_values_and_gradients_in_a_loop(shape, kernel, names, options):
    options = {"window_strides": (1,) * (len(shape) - 2), "padding": "SAME"} | options
    x, w = jax.random.normal(KEY, shape), jax.random.normal(KEY, kernel)

    def gradients(x, w):
        def loss(x, w):
            y = lax.conv_general_dilated(x, w, dimension_numbers=names, **options)
            return jnp.sum(jnp.sin(y))

        def once(_, carry):
            found = jax.value_and_grad(loss, argnums=(0, 1))(*carry)
            return jax.tree.map(lambda a, b: a - 0.1 * b, carry, found[1])

        return lax.fori_loop(0, 2, once, (x, w)), loss(x, w)

    mended = features_last(gradients)
    for a, b in zip(*map(jax.tree.leaves, (mended(x, w), gradients(x, w)))):
        np.testing.assert_allclose(a, b, rtol=2e-5, atol=2e-5)
    inner = ", ".join(map(str, range(len(shape) - 2)))
    assert len(orders(gradients, x, w)) > 1
    assert orders(mended, x, w) == {f"[b, {inner}, f]x[{inner}, i, o]->[b, {inner}, f]"}


def test_those_in_groups_stay():
    x, w = jax.random.normal(KEY, (2, 4, 6, 6)), jax.random.normal(KEY, (8, 1, 3, 3))

    def grouped(x, w):
        return lax.conv_general_dilated(x, w, (1, 1), "SAME", feature_group_count=4)

    assert orders(features_last(grouped), x, w) == orders(grouped, x, w)
    np.testing.assert_array_equal(features_last(grouped)(x, w), grouped(x, w))


def test_a_model_with_branches_checkpoints_and_outer_arrays():
    model = nn.Conv(3, (3, 3), strides=2)
    x = jax.random.normal(KEY, (2, 8, 8, 2))
    params = model.init(KEY, x)

    def step(scale, structure):
        @jax.checkpoint
        def loss(params):
            return jnp.sum(jnp.square(model.apply(params, x * scale)))

        found = lax.cond(scale > 0, jax.grad(loss), lambda p: p, params)
        return {"found": found, **structure}

    def outer(scale):
        return features_last(lambda s: step(s * scale, {"s": s}))(scale)

    found = jax.jit(outer)(jnp.float32(2))
    expected = step(jnp.float32(4), {"s": jnp.float32(2)})
    assert jax.tree.structure(found) == jax.tree.structure(expected)
    for a, b in zip(jax.tree.leaves(found), jax.tree.leaves(expected)):
        np.testing.assert_allclose(a, b, rtol=1e-5)
