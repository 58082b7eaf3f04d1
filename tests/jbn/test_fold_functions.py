"""The functions `fold` and `fold_forward`: any axis, groups, gradients and wrong shapes."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jbn

RNG = np.random.default_rng(0)
C_IN, C_OUT = 6, 4


def normal(*shape):
    return jnp.asarray(RNG.normal(size=shape), jnp.float32)


def linear(x, kernel, bias, groups=1):
    """A convolution over channels first in float64: kernel (O, I, K), x (N, I, W), by its sums."""
    x, kernel, bias = (np.asarray(v, np.float64) for v in (x, kernel, bias))
    width, per_group = kernel.shape[2], kernel.shape[0] // groups
    y = []
    for o, weights in enumerate(kernel):
        first = o // per_group * kernel.shape[1]
        part = x[:, first : first + kernel.shape[1]]
        windows = [part[..., i : i + width] for i in range(x.shape[-1] - width + 1)]
        y.append([np.einsum("niw,iw->n", window, weights) + bias[o] for window in windows])
    return np.moveaxis(np.asarray(y), -1, 0)


def along(vector, x):
    return np.asarray(vector, np.float64)[:, None] * np.ones(x.shape[1:])


@pytest.mark.parametrize("order", [(0, 1, 2), (2, 1, 0), (1, 2, 0), (2, 0, 1)])
@pytest.mark.parametrize("groups", [1, 2])
def test_features_may_be_on_any_axis(order, groups):
    kernel, bias = normal(C_OUT, C_IN // groups, 3), normal(C_OUT)
    x = normal(2, C_IN, 5)
    axis, input_axis = order.index(0), order.index(1)
    stored = jnp.transpose(kernel, order)

    after = jbn.Affine(normal(C_OUT), normal(C_OUT))
    new, shift = jbn.fold(stored, bias, after, axis=axis)
    y = linear(x, kernel, bias, groups)
    expected = y * along(after.scale, y) + along(after.bias, y)
    back = np.argsort(order)
    found = linear(x, jnp.transpose(new, back), shift, groups)
    np.testing.assert_allclose(found, expected, atol=1e-5)

    before = jbn.Affine(normal(C_IN), normal(C_IN))
    new, shift = jbn.fold_forward(stored, bias, before, axis=axis - 3, input_axis=input_axis)
    chex.assert_shape(new, stored.shape)
    z = np.asarray(x) * along(before.scale, x) + along(before.bias, x)
    found = linear(x, jnp.transpose(new, back), shift, groups)
    np.testing.assert_allclose(found, linear(z, kernel, bias, groups), atol=1e-5)
    _, from_none = jbn.fold_forward(stored, None, before, axis=axis, input_axis=input_axis)
    np.testing.assert_allclose(from_none, shift - bias, atol=1e-5)


def test_half_precision_rounds_once():
    kernel = normal(C_IN, C_OUT)
    affine = jbn.Affine(1 + normal(C_IN) / 9, normal(C_IN))
    half = kernel.astype(jnp.bfloat16)
    new, shift = jbn.fold_forward(half, None, affine)
    assert new.dtype == shift.dtype == jnp.bfloat16
    wide = np.asarray(half, np.float64)
    exact = np.asarray(affine.bias, np.float64) @ wide, np.asarray(affine.scale)[:, None] * wide
    for found, right in zip((shift, new), exact):
        np.testing.assert_allclose(np.asarray(found, np.float64), right, rtol=2**-8)


@pytest.mark.parametrize("forward", [False, True])
def test_gradients_are_those_of_the_two_steps(forward):
    """In a random direction: of weights, biases and all that the norm has."""
    n = C_IN if forward else C_OUT
    x, cotangent = normal(7, C_IN), normal(7, C_OUT)
    given = (
        normal(C_IN, C_OUT),
        normal(C_OUT),
        jbn.Affine(normal(n), normal(n)),
        jbn.RunningStats(normal(n), 1 + normal(n) ** 2),
    )

    def folded(kernel, bias, affine, stats):
        merge = jbn.fold_forward if forward else jbn.fold
        kernel, bias = merge(kernel, bias, jbn.as_affine(affine, stats, epsilon=1e-3))
        return jnp.sum(cotangent * (x @ kernel + bias[None]))

    def by_hand(kernel, bias, affine, stats):
        def norm(x):
            whitened = (x - stats.mean[None]) / jnp.sqrt(stats.var[None] + 1e-3)
            return whitened * affine.scale[None] + affine.bias[None]

        y = norm(x) @ kernel + bias[None] if forward else norm(x @ kernel + bias[None])
        return jnp.sum(cotangent * y)

    found = jax.jit(jax.grad(folded, argnums=(0, 1, 2, 3)))(*given)
    with jax.enable_x64(True):
        wide = jax.tree.map(lambda leaf: leaf.astype(jnp.float64), given)
        x, cotangent = x.astype(jnp.float64), cotangent.astype(jnp.float64)
        expected = jax.jit(jax.grad(by_hand, argnums=(0, 1, 2, 3)))(*wide)
    chex.assert_trees_all_close(
        *(jax.tree.map(np.float64, tree) for tree in (found, expected)), rtol=1e-4, atol=1e-4
    )


def test_what_does_not_fit_is_named():
    kernel, four, six = normal(C_IN, C_OUT), jbn.Affine(*normal(2, 4)), jbn.Affine(*normal(2, 6))
    with pytest.raises(ValueError, match=r"kernel of shape \(6, 4\) has 6 on axis 0, affine.scale"):
        jbn.fold(kernel, None, four, axis=0)
    with pytest.raises(ValueError, match=r"axis=2 is out of range"):
        jbn.fold(kernel, None, four, axis=2)
    with pytest.raises(ValueError, match=r"number per input: kernel of shape \(6, 4\) has 6"):
        jbn.fold_forward(kernel, None, four)
    with pytest.raises(ValueError, match="scale has shape"):
        jbn.fold_forward(kernel, None, jbn.Affine(*normal(2, 18)))  # 3 groups of 4 outputs
    with pytest.raises(ValueError, match="bias has shape"):
        jbn.fold_forward(kernel, normal(6), six)
    with pytest.raises(ValueError, match="both axis 1"):
        jbn.fold_forward(kernel, None, six, input_axis=-1)
