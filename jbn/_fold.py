"""Batch norm at inference is an affine map, so it merges into the Dense or Conv before it."""

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float

from jbn._numerics.arrays import check_features, check_float, per_feature, statistics_dtype
from jbn._numerics.values import as_record, check_epsilon, numbers_to_device
from jbn._types import Affine, RunningStats


def as_affine(
    affine: Affine, stats: RunningStats, *, epsilon: float | Float[Array, ""] = 1e-5
) -> Affine:
    r"""Batch norm at inference as one scale and one bias.

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
    kernel: Float[Array, "*window C"], bias: Float[Array, "C"] | None, affine: Affine
) -> tuple[Float[Array, "*window C"], Float[Array, "C"]]:
    r"""A linear layer that does what it and an affine map after it did together.

    $$s\,(W x + w) + b = (s W)\,x + (s\,w + b)$$

    Args:
      kernel: of a Dense, (inputs, C), or of a Conv, (*window, inputs, C): output features last.
      bias: that of the same layer, or None if it has none.
      affine: the map, each vector of shape (C,); `as_affine` gives a batch norm's.

    Returns:
      The new kernel and bias, of the type of `kernel`.

    Raises:
      TypeError, ValueError: naming what is not floating-point or has not C features.

    >>> import jax, jax.numpy as jnp
    >>> from jbn import normalize
    >>> x, kernel = jax.random.normal(jax.random.key(0), (2, 3, 3))
    >>> stats, affine = RunningStats(kernel[0], kernel[1] ** 2), Affine(kernel[2], kernel[0])
    >>> folded, bias = fold(kernel, None, as_affine(affine, stats))
    >>> y = x @ folded + bias[None]
    >>> bool(jnp.allclose(y, normalize(x @ kernel, *stats, *affine), atol=1e-4))
    True
    """
    kernel = check_float(kernel, "kernel")
    affine = as_record("affine", affine, Affine)
    check_features(kernel, affine=affine)
    if bias is not None:
        bias = check_float(bias, "bias")
        check_features(kernel, bias=bias)
    return _fold(kernel, bias, affine)


@jax.jit
def _fold(kernel: Array, bias: Array | None, affine: Affine) -> tuple[Array, Array]:
    dtype = statistics_dtype(affine.scale.dtype)
    scale, shift = (v.astype(dtype) for v in affine)
    folded = kernel.astype(dtype) * per_feature(scale, kernel)
    shift = shift if bias is None else scale * bias.astype(dtype) + shift
    return folded.astype(kernel.dtype), shift.astype(kernel.dtype)
