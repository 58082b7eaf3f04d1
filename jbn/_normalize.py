"""The elementwise half of batch norm: subtract a mean, divide by a deviation, scale and shift."""

from functools import partial

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float, Inexact

from jbn._arrays import check_features, check_float, per_feature, statistics_dtype
from jbn._frame import Frame, enter, identity_frame
from jbn._sweeps import spread_batch
from jbn._values import as_vector, check_epsilon, numbers_to_device


def normalize(
    x: Float[Array, "*batch C"],
    mean: Float[Array, "C"],
    var: Float[Array, "C"],
    scale: Float[Array, "C"] | float = 1.0,
    bias: Float[Array, "C"] | float = 0.0,
    *,
    epsilon: float | Float[Array, ""] = 1e-5,
) -> Float[Array, "*batch C"]:
    r"""Normalises with the given statistics: batch norm at inference, elementwise.

    $$y = \gamma \frac{x - \mu}{\sqrt{\sigma^2 + \epsilon}} + \beta$$

    `normalize(x, *stats, *affine)` is inference, and frozen batch norm while training.

    Args:
      x: floating-point, features last; any number of axes before, none included.
      mean, var: the statistics, one number per feature. A variance below zero counts as zero.
      scale, bias: gamma and beta, one number per feature or one for all.
      epsilon: added to the variance, in its units; positive.

    Returns:
      Same shape and type as `x`, computed in float32 at least.

    Raises:
      TypeError, ValueError: naming the argument, what came and what was needed.

    Ioffe & Szegedy 2015 (arXiv:1502.03167), Algorithm 2, step 11.

    >>> import jax.numpy as jnp
    >>> x = jnp.array([[1.0], [5.0], [9.0]])
    >>> print(normalize(x, jnp.array([5.0]), jnp.array([32 / 3])).round(4).ravel())
    [-1.2247  0.      1.2247]
    """
    x = check_float(x)
    if x.ndim == 0:
        raise ValueError(f"x must have shape (*batch, features), got {x.shape}.")
    dtype = statistics_dtype(x.dtype)
    epsilon = check_epsilon(epsilon, dtype)
    vectors = {"mean": mean, "var": var, "scale": scale, "bias": bias}
    vectors = {name: as_vector(name, value, x) for name, value in vectors.items()}
    check_features(x, **vectors)
    with numbers_to_device():
        return _normalize(x, *(v.astype(dtype) for v in vectors.values()), epsilon)


@jax.jit
def _normalize(x, mean, var, scale, bias, epsilon):
    frame = identity_frame(mean)
    return frame_normalize(frame, x, mean, jnp.maximum(var, 0), scale, bias, epsilon)


def frame_normalize(
    frame: Frame, x: Array, mean: Array, var: Array, scale: Array, bias: Array, epsilon
) -> Inexact[Array, "*batch C"]:
    """`normalize` where `mean` and `var` are in the units of `frame`, `epsilon` in those of `x`."""
    dtype = var.dtype
    precision = lax.rsqrt(var + jnp.asarray(epsilon, dtype) * frame.factor * frame.factor)
    gain = scale.astype(dtype) * precision
    return _affine_map(x, frame, mean, gain, bias.astype(dtype)).astype(x.dtype)


@jax.custom_jvp
def _affine_map(x: Array, frame: Frame, mean: Array, gain: Array, bias: Array) -> Array:
    # Subtracted before it is multiplied, and in two steps: shift + mean is the mean unrounded.
    centred = enter(frame, x) - per_feature(mean, x)
    return centred * per_feature(gain, x) + per_feature(bias, x)


@_affine_map.defjvp
def _affine_map_jvp(primals, tangents):
    x, frame, mean, gain, _ = primals
    dx, _, dmean, dgain, dbias = tangents

    # Rematerialised for the same reason as in `_moments`: only x waits for the backward pass.
    @partial(jax.checkpoint, prevent_cse=False)
    def tangent(dx, dmean, dgain, dbias, x, frame, mean, gain):
        # In two steps: the product of factor and gain can underflow where dy does not.
        du = dx.astype(gain.dtype) * per_feature(frame.factor, dx) * per_feature(gain, dx)

        def line(coefficients, x):
            slope, intercept = coefficients
            return (enter(frame, x) - per_feature(mean, x)) * slope + intercept

        return du + spread_batch(line, (dgain, dbias - gain * dmean), x)

    return _affine_map(*primals), tangent(dx, dmean, dgain, dbias, x, frame, mean, gain)
