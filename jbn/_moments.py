"""Moments of a batch: mean, variance and size, measured or pooled from those of its parts."""

from collections.abc import Iterable
from functools import partial
from typing import TypeVar

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Bool, Float

from jbn._numerics.arrays import (
    align_weights,
    batch_axes,
    broadcast_mask,
    check_filled,
    check_float,
    statistics_dtype,
)
from jbn._numerics.devices import Devices, gather_vectors, restrict_axis
from jbn._numerics.frame import Frame, range_factor
from jbn._numerics.measure import Measured, Values, measure, two_sum
from jbn._numerics.values import as_moments, numbers_to_device
from jbn._types import AxisName, Moments

Parts = TypeVar("Parts", Moments, Measured)


def batch_moments(
    x: Float[Array, "*batch C"], *, mask: Array | None = None, weights: Array | None = None
) -> Moments:
    r"""Measures mean, biased variance and size of each feature over all axes but the last.

    $$\mu = \frac1n \sum_i x_i, \qquad \sigma^2 = \frac1n \sum_i (x_i - \mu)^2$$

    Both sums are taken about a value inside the data (`jbn._numerics.frame`), so the result is
    right to rounding also where the mean is a million times the standard deviation.

    Args:
      x: floating-point, features last. bfloat16 and float16 are summed in float32.
      mask: True where an example counts, one flag per example (`x.shape[:-1]`) or per element
        (`x.shape`, or with ones). What it excludes may hold NaN: it affects neither values nor
        gradients.
      weights: how much each example counts, in the shapes of a mask: 2 is an example given twice,
        and their sum is the size. Differentiable: importance weights, soft masks. A negative weight
        makes the moments NaN.

    Returns:
      `Moments` of shape (C,), at least float32. Where nothing counts they are zeros of size zero.

    Raises:
      TypeError: if `x` or `weights` is not floating-point, or `mask` is not boolean.
      ValueError: if `x` has no batch axis, or `mask` or `weights` do not fit it.

    Ioffe & Szegedy 2015 (arXiv:1502.03167), Algorithm 1.

    >>> import jax.numpy as jnp
    >>> mean, var, size = batch_moments(jnp.array([[1.0, 2.0], [5.0, 6.0], [9.0, 10.0]]))
    >>> print(mean, var, size)
    [5. 6.] [10.666667 10.666667] [3. 3.]
    """
    x = check_float(x)
    if x.ndim < 2:
        raise ValueError(f"x must have shape (*batch, features), got {x.shape}.")
    check_filled(x)
    mask = broadcast_mask(mask, x)
    if weights is None:
        return _batch_moments(x, mask)
    return _weighted_moments(x, mask, align_weights(weights, x))


@jax.jit
def _batch_moments(x: Array, mask: Array | None) -> Moments:
    values = Values.of(clean_padding(x, mask), statistics_dtype(x.dtype))
    guess = jnp.zeros(x.shape[-1:], values.wide.dtype)
    return measure(values, mask, guess, 0.0).moments()


@jax.jit
def _weighted_moments(x: Array, mask: Array | None, weights: Array) -> Moments:
    # Every example is a part of its own, and the whole is pooled from them.
    x = x.astype(statistics_dtype(x.dtype))
    weights = jnp.broadcast_to(jnp.where(weights < 0, jnp.nan, weights).astype(x.dtype), x.shape)
    # Of weight zero an example still has a derivative in its weight, unless it is padding.
    counts = (weights != 0) | jnp.isfinite(jnp.square(x))
    if mask is not None:
        weights, counts = jnp.where(mask, weights, 0), counts & mask
    return _pool(Moments(x, jnp.zeros_like(x), weights), counts, batch_axes(x))


def clean_padding(x: Array, mask: Array | None) -> Array:
    """Replaces the NaN and inf that `mask` excludes by zeros: 0 * NaN is NaN in every gradient."""
    return x if mask is None else _zero_unless(mask | jnp.isfinite(x), x)


# Rematerialised: only the flags wait for the backward pass, not the zeros beside them.
@partial(jax.checkpoint, prevent_cse=False)
def _zero_unless(keep: Array, x: Array) -> Array:
    return jnp.where(keep, x, jnp.zeros_like(x))


def pool_moments(stacked: Moments) -> Moments:
    r"""Pools the moments of the parts of a batch, stacked along the first axis, exactly.

    $$n = \sum_k n_k, \qquad \mu = \sum_k \frac{n_k}{n} \mu_k, \qquad
      \sigma^2 = \sum_k \frac{n_k}{n} \left(\sigma_k^2 + (\mu_k - \mu)^2\right)$$

    The law of total variance: variance within the parts plus variance between them. Parts may be
    devices, ghost groups, micro-batches or calibration batches, of any sizes; an empty part
    is ignored, whatever its mean holds.

    Args:
      stacked: `Moments` with leaves of shape (K, C).

    Returns:
      `Moments` of shape (C,).

    >>> import jax, jax.numpy as jnp
    >>> x = jax.random.normal(jax.random.key(0), (10, 3))
    >>> parts = [batch_moments(x[:4]), batch_moments(x[4:])]
    >>> pooled = pool_moments(jax.tree.map(lambda *leaves: jnp.stack(leaves), *parts))
    >>> bool(jnp.allclose(pooled.var, batch_moments(x).var))
    True
    """
    stacked = as_moments(stacked, "stacked")
    if stacked.size.ndim < 2 or stacked.size.shape[0] == 0:
        raise ValueError(
            f"stacked must hold moments of shape (K, C), one row for each of K parts, at least "
            f"one; got {stacked.size.shape}."
        )
    with numbers_to_device():
        return _pool_moments(stacked)


@jax.jit
def _pool_moments(stacked: Moments) -> Moments:
    return _pool(stacked, stacked.size > 0, axes=(0,))


def _pool(parts: Moments, present: Array, axes: tuple[int, ...]) -> Moments:
    """Pools the parts that are `present` along `axes`."""
    size = jnp.sum(parts.size, axis=axes, keepdims=True)
    weight = parts.size / jnp.where(size > 0, size, 1)

    def average(leaf):
        return jnp.sum(weight * jnp.where(present, leaf, 0), axis=axes, keepdims=True)

    # About a value among the means, so that large means lose no digits to each other.
    origin = lax.stop_gradient(average(parts.mean))
    offset = jnp.where(present, parts.mean - origin + parts.remainder, 0)
    rest = average(offset)
    var = average(parts.var + jnp.square(offset - rest))
    mean, rest, var, size = (jnp.squeeze(leaf, axes) for leaf in (origin, rest, var, size))
    mean, remainder = two_sum(mean, rest)
    return Moments(mean, var, size, remainder)


def pool_measured(stacked: Measured) -> Measured:
    """Pools parts that were measured each in units of its own."""
    (factors, shift), mean, _, size = lax.stop_gradient(stacked)
    present = size > 0
    factor = jnp.min(factors, axis=0, where=present, initial=jnp.inf)
    factor = jnp.where(jnp.isfinite(factor), factor, 1)
    # What lies between the means may be out of range where nothing within the parts is.
    means = (shift + mean) / factors * factor[None]
    low = jnp.min(means, axis=0, where=present, initial=jnp.inf)
    high = jnp.max(means, axis=0, where=present, initial=-jnp.inf)
    factor = range_factor(factor, high / 2 - low / 2)
    frame, mean, var, size = stacked.with_factor(factor[None])
    mean, remainder = two_sum(frame.shift, mean)
    pooled = pool_moments(Moments(mean, var, size, remainder))
    return Measured(Frame(factor, pooled.mean), pooled.remainder, pooled.var, pooled.size)


def sync_moments(
    moments: Moments,
    axis_name: AxisName,
    *,
    axis_index_groups: Iterable[Iterable[int]] | None = None,
) -> Moments:
    """Pools the moments that each device holds of its part into those of the whole batch.

    Exact for parts of any sizes, empty ones included: sizes travel with the means. One collective.

    Args:
      moments: `Moments` of shape (C,) of this device's examples.
      axis_name: a name, or a tuple of names, of `shard_map`, `vmap` or `pmap`.
      axis_index_groups: lists of indices along that axis, each index in one of them; the devices
        of a list then share one batch. By default all do.

    Raises:
      NameError: if `axis_name` is not bound by one of these.
      ValueError: if `axis_index_groups` leave out or repeat an index.
    """
    moments = as_moments(moments)
    if moments.size.ndim != 1:
        raise ValueError(f"moments must have shape (C,), got {moments.size.shape}.")
    parts, together = gather_vectors(moments, restrict_axis(axis_name, axis_index_groups))
    return pool_moments(_drop_other_groups(together, parts))


def sync_measured(measured: Measured, devices: Devices) -> Measured:
    """Pools what devices measured each in units of its own."""
    parts, together = gather_vectors(measured, devices)
    return pool_measured(_drop_other_groups(together, parts))


def _drop_other_groups(together: Bool[Array, "K"], parts: Parts) -> Parts:
    """Makes the parts of other groups empty."""
    together = together.reshape(-1, *[1] * (parts.size.ndim - 1))
    return parts._replace(size=jnp.where(together, parts.size, 0))


def bessel_correction(moments: Moments) -> Moments:
    r"""Replaces the biased variance by the unbiased one, $\sigma^2 n / (n - 1)$.

    PyTorch keeps this one in its running statistics (its `var` divides by n - 1), and still
    normalises the batch with the biased one. A sample of one has no unbiased variance and keeps its
    0, which `update_running` does not read.

    >>> import jax.numpy as jnp
    >>> print(bessel_correction(batch_moments(jnp.array([[1.0], [5.0], [9.0]]))).var)
    [16.]
    """
    moments = as_moments(moments)
    with numbers_to_device():
        return moments._replace(var=_unbiased(moments.var, moments.size))


@jax.jit
def _unbiased(var: Array, size: Array) -> Array:
    return jnp.where(size > 1, var * (size / jnp.maximum(size - 1, 1)), var)
