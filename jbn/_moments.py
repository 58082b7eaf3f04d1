"""Mean and variance of a batch, and how the moments of parts become the moments of the whole."""

import math
from collections.abc import Iterable
from functools import partial

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Bool, Float

from jbn._arrays import batch_axes, broadcast_mask, check_filled, check_float, per_feature
from jbn._devices import gather, group_axis
from jbn._frame import Frame, choose_frame, common_frame, enter
from jbn._sweeps import sum_batch
from jbn._types import AxisName, Moments
from jbn._values import as_moments, numbers_to_device


def batch_moments(x: Float[Array, "*batch C"], *, mask: Array | None = None) -> Moments:
    r"""Mean, biased variance and size of each feature over all axes but the last.

    $$\mu = \frac1n \sum_i x_i, \qquad \sigma^2 = \frac1n \sum_i (x_i - \mu)^2$$

    Both sums are taken about a value inside the data (`jbn._frame`), so the result is right to
    rounding also where the mean is a million times the standard deviation.

    Args:
      x: floating-point, features last. bfloat16 and float16 are summed in float32.
      mask: True where an example counts, one flag per example (`x.shape[:-1]`) or per element
        (`x.shape`, or with ones). What it excludes may hold NaN: no value or gradient notices.

    Returns:
      `Moments` of shape (C,), at least float32. Where nothing counts they are zeros of size zero.

    Raises:
      TypeError: if `x` is not floating-point, or `mask` is not boolean.
      ValueError: if `x` has no batch axis, or `mask` does not fit it.

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
    return _batch_moments(x, broadcast_mask(mask, x))


@jax.jit
def _batch_moments(x: Array, mask: Array | None) -> Moments:
    _, frame, moments = frame_batch(x, mask, None)
    return leave(frame, moments)


def frame_batch(
    x: Array, mask: Array | None, axis_name: AxisName | None
) -> tuple[Array, Frame, Moments]:
    """What most variants begin with: `x` without bad padding, a frame, the whole batch in it."""
    x = clean_padding(x, mask)
    frame = choose_frame(x, mask)
    moments = frame_moments(frame, x, mask)
    if axis_name is not None:
        frame, moments = sync_frame_moments(frame, moments, axis_name)
    return x, frame, moments


def clean_padding(x: Array, mask: Array | None) -> Array:
    """Zeros for the NaN and inf that `mask` excludes: 0 * NaN would be NaN in every gradient."""
    return x if mask is None else lax.select(mask | jnp.isfinite(x), x, jnp.zeros_like(x))


def frame_moments(frame: Frame, x: Array, mask: Array | None) -> Moments:
    """The moments of `x` in the units of `frame`, their derivative kept to one array, `x`."""
    size = _sample_size(x, mask, frame.factor.dtype)
    mean, var = _mean_and_var(x, frame, mask, jnp.maximum(size, 1))
    return Moments(mean, var, size)


def leave(frame: Frame, moments: Moments) -> Moments:
    """Moments in the units of the data again."""
    unit = 1 / frame.factor
    # Not divided by the square of the factor, which underflows where the variance still fits.
    return moments._replace(mean=(moments.mean + frame.shift) * unit, var=moments.var * unit * unit)


def _sample_size(x: Array, mask: Array | None, dtype) -> Float[Array, "C"]:
    if mask is None:
        size = jnp.full((), math.prod(x.shape[:-1]), dtype)
    else:
        # An axis of length one in the mask stands for all of that axis of x.
        repeats = math.prod(x.shape[:-1]) // math.prod(mask.shape[:-1])
        size = jnp.sum(mask, axis=batch_axes(mask), dtype=dtype) * repeats
    return jnp.broadcast_to(size, x.shape[-1:])


def _counted(mask: Array | None, term: Array) -> Array:
    return term if mask is None else jnp.where(mask, term, jnp.zeros_like(term))


@jax.custom_jvp
def _mean_and_var(x: Array, frame: Frame, mask: Array | None, size: Array) -> tuple[Array, Array]:
    if mask is not None:
        mask = jnp.broadcast_to(mask, (*x.shape[:-1], mask.shape[-1]))

    def terms(x, mask=None):
        u = _counted(mask, enter(frame, x))
        return u, u * u

    total, squares = sum_batch(terms, x) if mask is None else sum_batch(terms, x, mask)
    mean = total / size
    var = squares / size - mean * mean
    # max(nan, 0) is nan, and so must be an overflow: no evidence, where inf would be a wrong y.
    return mean, jnp.where(jnp.isfinite(squares), jnp.maximum(var, 0), jnp.nan)


@_mean_and_var.defjvp
def _mean_and_var_jvp(primals, tangents):
    # d mean = mean(dx),  d var = 2 mean((x - mean) dx). JAX transposes this pair into the closed
    # form backward pass; being a jvp, it also serves jvp, hessian and vmap.
    x, frame, mask, size = primals
    mean, var = _mean_and_var(*primals)

    # Rematerialised: what waits for the backward pass is x itself, not x - mean beside it.
    @partial(jax.checkpoint, prevent_cse=False)
    def tangent(dx, x, frame, mask, size, mean):
        du = _counted(mask, dx.astype(mean.dtype) * per_feature(frame.factor, dx))
        centred = enter(frame, x) - per_feature(mean, x)
        axes = batch_axes(x)
        return jnp.sum(du, axis=axes) / size, 2 * jnp.sum(centred * du, axis=axes) / size

    return (mean, var), tangent(tangents[0], x, frame, mask, size, mean)


def pool_moments(stacked: Moments) -> Moments:
    r"""The moments of a batch from those of its parts, stacked along the first axis: exact.

    $$n = \sum_k n_k, \qquad \mu = \sum_k \frac{n_k}{n} \mu_k, \qquad
      \sigma^2 = \sum_k \frac{n_k}{n} \left(\sigma_k^2 + (\mu_k - \mu)^2\right)$$

    The law of total variance: variance within the parts plus variance between them. Parts may be
    devices, ghost groups, micro-batches or calibration batches, of any sizes; an empty part has
    no say, whatever its mean holds.

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
    present = stacked.size > 0
    size = jnp.sum(stacked.size, axis=0, keepdims=True)
    weight = stacked.size / jnp.maximum(size, 1)
    # About one part's mean, so that large means lose no digits to each other.
    first = jnp.argmax(present, axis=0, keepdims=True)
    origin = lax.stop_gradient(jnp.take_along_axis(stacked.mean, first, axis=0))
    offset = jnp.where(present, stacked.mean - origin, 0)
    mean = jnp.sum(weight * offset, axis=0, keepdims=True)
    within = jnp.where(present, stacked.var, 0)
    between = jnp.square(offset - mean)
    var = jnp.sum(weight * (within + between), axis=0)
    return Moments(jnp.where(size > 0, origin + mean, 0)[0], var, size[0])


def sync_moments(
    moments: Moments,
    axis_name: AxisName,
    *,
    axis_index_groups: Iterable[Iterable[int]] | None = None,
) -> Moments:
    """The moments of the whole batch, from those that each device holds of its part.

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
    parts, together = gather(moments, group_axis(axis_name, axis_index_groups))
    return pool_moments(_only(together, parts))


def sync_frame_moments(
    frame: Frame, moments: Moments, axis_name: AxisName
) -> tuple[Frame, Moments]:
    """`sync_moments` for parts that were measured each in a frame of its own."""
    (frames, parts), together = gather((frame, moments), axis_name)
    parts = _only(together, parts)
    common = common_frame(frames, parts.size > 0)
    scale = common.factor[None] / frames.factor
    mean = parts.mean * scale + (frames.shift * scale - common.shift[None])
    return common, pool_moments(parts._replace(mean=mean, var=parts.var * scale * scale))


def _only(together: Bool[Array, "K"], parts: Moments) -> Moments:
    """`parts` with those of other groups made empty."""
    return parts._replace(size=jnp.where(together[:, None], parts.size, 0))


def bessel_correction(moments: Moments) -> Moments:
    r"""The unbiased variance, $\sigma^2 n / (n - 1)$, in place of the biased one.

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
