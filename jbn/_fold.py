"""Folding: batch norm at inference is an affine map, merged into the Dense or Conv beside it."""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float

from jbn._numerics.arrays import check_features, check_float, statistics_dtype
from jbn._numerics.layout import feature_axes
from jbn._numerics.values import as_record, check_epsilon, numbers_to_device
from jbn._types import Affine, RunningStats


def as_affine(
    affine: Affine, stats: RunningStats, *, epsilon: float | Float[Array, ""] = 1e-5
) -> Affine:
    r"""Returns batch norm at inference as one scale and one bias.

    $$y = s\,x + b, \qquad s = \frac{\gamma}{\sqrt{\sigma^2 + \epsilon}}, \qquad
      b = \beta - s\,\mu$$

    Args:
      affine, stats: of a trained layer, each vector of shape (C,).
      epsilon: that of the layer.

    Returns:
      The scale $s$ and the bias $b$, of shape (C,), at least float32. Where the mean is large
      beside the deviation, $s\,x + b$ rounds more than `normalize`, which subtracts first.

    Raises:
      TypeError, ValueError: if `epsilon` is no positive number, or the shapes differ.

    >>> import jax.numpy as jnp
    >>> affine = Affine(scale=jnp.array([3.0]), bias=jnp.array([1.0]))
    >>> stats = RunningStats(mean=jnp.array([2.0]), var=jnp.array([4.0]))
    >>> print(*as_affine(affine, stats, epsilon=1e-9))
    [1.5] [-2.]
    """
    affine = as_record("affine", affine, Affine)
    stats = as_record("stats", stats, RunningStats)
    check_features(stats.mean, stats=stats, affine=affine)
    epsilon = check_epsilon(epsilon, statistics_dtype(stats.mean.dtype))
    with numbers_to_device():
        return _as_affine(affine, stats, epsilon)


@jax.jit
def _as_affine(affine: Affine, stats: RunningStats, epsilon) -> Affine:
    dtype = statistics_dtype(stats.mean.dtype)
    mean, var, scale, bias = (v.astype(dtype) for v in (*stats, *affine))
    scale = scale * lax.rsqrt(jnp.maximum(var, 0) + jnp.asarray(epsilon, dtype))
    return Affine(scale, bias - scale * mean)


def fold(
    kernel: Float[Array, "..."],
    bias: Float[Array, "C"] | None,
    affine: Affine,
    *,
    axis: int = -1,
) -> tuple[Float[Array, "..."], Float[Array, "C"]]:
    r"""Merges an affine map into the linear layer before it.

    $$s\,(W x + w) + b = (s W)\,x + (s\,w + b)$$

    Differentiable in all that it takes, for quantisation-aware training.

    Args:
      kernel: of a Dense, (inputs, C), or of a Conv, (*window, inputs, C).
      bias: that of the same layer, or None if it has none.
      affine: the map, each vector of shape (C,); `as_affine` gives a batch norm's.
      axis: that of the output features in `kernel`: 0 for PyTorch's and Equinox's layers, -2 for
        Flax's `ConvTranspose(transpose_kernel=True)`.

    Returns:
      The new kernel and bias, of the type of `kernel`.

    Raises:
      TypeError, ValueError: naming what is not floating-point or has not C features.

    Jacob et al. 2018 (arXiv:1712.05877), section 3.2.

    >>> import jax, jax.numpy as jnp
    >>> from jbn import normalize
    >>> x, kernel = jax.random.normal(jax.random.key(0), (2, 3, 3))
    >>> stats, affine = RunningStats(kernel[0], kernel[1] ** 2), Affine(kernel[2], kernel[0])
    >>> folded, bias = fold(kernel, None, as_affine(affine, stats))
    >>> y = x @ folded + bias[None]
    >>> bool(jnp.allclose(y, normalize(x @ kernel, *stats, *affine), atol=1e-4))
    True
    """
    kernel, bias, affine, axis = _checked(kernel, bias, affine, axis)
    _check_vectors(kernel, axis, affine=affine)
    return _fold(kernel, bias, affine, axis)


@partial(jax.jit, static_argnames="axis")
def _fold(kernel: Array, bias: Array | None, affine: Affine, axis: int) -> tuple[Array, Array]:
    dtype = statistics_dtype(affine.scale.dtype)
    scale, shift = (v.astype(dtype) for v in affine)
    along = [1] * kernel.ndim
    along[axis] = -1
    folded = kernel.astype(dtype) * scale.reshape(along)
    shift = shift if bias is None else scale * bias.astype(dtype) + shift
    return folded.astype(kernel.dtype), shift.astype(kernel.dtype)


def fold_forward(
    kernel: Float[Array, "..."],
    bias: Float[Array, "C"] | None,
    affine: Affine,
    *,
    axis: int = -1,
    input_axis: int = -2,
) -> tuple[Float[Array, "..."], Float[Array, "C"]]:
    r"""Merges an affine map into the linear layer after it.

    $$W (s\,x + b) + w = (W s)\,x + (W b + w)$$

    Right for a Conv that pads with something else than zeros, or with nothing: the zeros would
    need the map too. Differentiable in all that it takes.

    Args:
      kernel: of a Dense, (inputs, C), or of a Conv, (*window, inputs, C). Where it has K times
        fewer inputs than `affine`, it is that of a convolution in K groups.
      bias: that of the same layer, or None if it has none.
      affine: the map, one number per input; `as_affine` gives a batch norm's.
      axis, input_axis: those of the output and input features in `kernel`; 0 and 1 for PyTorch's
        and Equinox's layers.

    Returns:
      The new kernel and bias, of the type of `kernel`.

    Raises:
      TypeError, ValueError: naming what is not floating-point or does not fit.

    >>> import jax, jax.numpy as jnp
    >>> from jbn import normalize
    >>> x, kernel = jax.random.normal(jax.random.key(0), (2, 3, 3))
    >>> stats, affine = RunningStats(kernel[0], kernel[1] ** 2), Affine(kernel[2], kernel[0])
    >>> folded, bias = fold_forward(kernel, None, as_affine(affine, stats))
    >>> y = x @ folded + bias[None]
    >>> bool(jnp.allclose(y, normalize(x, *stats, *affine) @ kernel, atol=1e-4))
    True
    """
    kernel, bias, affine, axis = _checked(kernel, bias, affine, axis)
    (input_axis,) = feature_axes(kernel.ndim, input_axis)
    if input_axis == axis:
        raise ValueError(f"axis and input_axis are both axis {axis} of the kernel.")
    inputs, outputs = kernel.shape[input_axis], kernel.shape[axis]
    groups = affine.scale.size // max(inputs, 1)
    shapes = {v.shape for v in affine}
    if shapes != {(groups * inputs,)} or groups == 0 or outputs % groups:
        raise ValueError(
            f"affine must have one number per input: kernel of shape {kernel.shape} has {inputs} "
            f"on axis {input_axis}, or a multiple of it in a grouped convolution, scale has shape "
            f"{affine.scale.shape} and bias {affine.bias.shape}."
        )
    return _fold_forward(kernel, bias, affine, axis, input_axis)


@partial(jax.jit, static_argnames=("axis", "input_axis"))
def _fold_forward(
    kernel: Array, bias: Array | None, affine: Affine, axis: int, input_axis: int
) -> tuple[Array, Array]:
    dtype = statistics_dtype(affine.scale.dtype)
    moved = jnp.moveaxis(kernel.astype(dtype), (input_axis, axis), (-2, -1))
    inputs, outputs = moved.shape[-2:]

    def per_weight(vector: Array) -> Array:
        """Gives one number for each input and output: those of a group read its inputs only."""
        of_group = vector.astype(dtype).reshape(-1, inputs).T
        wide = jnp.repeat(of_group, outputs // of_group.shape[1], axis=1)
        return wide.reshape((1,) * (moved.ndim - 2) + wide.shape)

    # A sum of products, because a matrix product may round more.
    shift = jnp.sum(moved * per_weight(affine.bias), axis=tuple(range(moved.ndim - 1)))
    shift = shift if bias is None else shift + bias.astype(dtype)
    folded = jnp.moveaxis(moved * per_weight(affine.scale), (-2, -1), (input_axis, axis))
    return folded.astype(kernel.dtype), shift.astype(kernel.dtype)


def _checked(kernel: Any, bias: Any, affine: Any, axis: int) -> tuple:
    kernel = check_float(kernel, "kernel")
    affine = as_record("affine", affine, Affine)
    (axis,) = feature_axes(kernel.ndim, axis)
    if bias is not None:
        bias = check_float(bias, "bias")
        _check_vectors(kernel, axis, bias=bias)
    return kernel, bias, affine, axis


def _check_vectors(kernel: Array, axis: int, **named: Any) -> None:
    for name, value in named.items():
        for path, vector in jax.tree_util.tree_leaves_with_path(value):
            if vector.shape != (kernel.shape[axis],):
                name += jax.tree_util.keystr(path)
                raise ValueError(
                    f"{name} must have one number per output feature: kernel of shape "
                    f"{kernel.shape} has {kernel.shape[axis]} on axis {axis}, {name} has shape "
                    f"{vector.shape}."
                )
