"""Normalisation with given moments: the elementwise half of batch norm."""

from functools import partial

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float

from jbn._numerics.arrays import check_features, check_float, per_feature, statistics_dtype
from jbn._numerics.columns import broadcast_line
from jbn._numerics.frame import Frame
from jbn._numerics.measure import Measured, Values
from jbn._numerics.values import as_vector, check_epsilon, numbers_to_device
from jbn._types import Moments


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
    values = Values.of(x, mean.dtype)
    measured = Measured.about(Moments(mean, jnp.maximum(var, 0), jnp.zeros_like(mean)))
    return apply_moments(values, measured, scale, bias, epsilon).astype(x.dtype)


def apply_moments(
    values: Values, measured: Measured, scale: Array, bias: Array, epsilon
) -> Float[Array, "*batch C"]:
    """Normalises in the units of `measured`; `epsilon` is in those of the data."""
    frame, mean, var, _ = measured
    epsilon = jnp.asarray(epsilon, var.dtype) * frame.factor * frame.factor
    gain = scale.astype(var.dtype) * lax.rsqrt(var + epsilon)
    return _affine_map(values, frame, mean, gain, bias.astype(var.dtype))


@jax.custom_jvp
def _affine_map(values: Values, frame: Frame, mean: Array, gain: Array, bias: Array) -> Array:
    # Subtracted in two steps: shift + mean, rounded to one number, would lose digits that count.
    centred = frame.convert(values.stored) - per_feature(mean, values.stored)
    return centred * per_feature(gain, centred) + per_feature(bias, centred)


@_affine_map.defjvp
def _affine_map_jvp(primals, tangents):
    values, frame, mean, gain, _ = primals
    dvalues, dframe, dmean, dgain, dbias = tangents

    # Rematerialised: what waits for the backward pass is x itself, not x - mean beside it.
    @partial(jax.checkpoint, prevent_cse=False)
    def tangent(dx, dmean, dgain, dbias, wide, frame, mean, gain):
        # In two steps: the product of factor and gain can underflow where dy does not.
        du = dx * per_feature(frame.factor, dx) * per_feature(gain, dx)
        return du + broadcast_line(dgain, dbias - gain * dmean, wide, frame, mean)

    tangents = (dvalues.wide, dmean + dframe.shift, dgain, dbias)
    return _affine_map(*primals), tangent(*tangents, values.wide, frame, mean, gain)
