"""What the Flax front-ends share: feature axes anywhere, and a choice of output type."""

import math
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array

from jbn._batch_norm import batch_norm
from jbn._normalize import normalize
from jbn._types import Affine, RunningStats


def feature_axes(ndim: int, axis: int | Sequence[int]) -> tuple[int, ...]:
    """`axis` as sorted positive numbers."""
    axes = tuple(axis) if isinstance(axis, Sequence) else (axis,)
    for a in axes:
        if isinstance(a, bool) or not isinstance(a, int):
            raise TypeError(f"axis must be an int or a tuple of ints, got {axis!r}.")
        if not -ndim <= a < ndim:
            raise ValueError(f"axis={axis!r} is out of range for an input of {ndim} axes.")
    positive = sorted(a % ndim for a in axes)
    if not positive or len(set(positive)) < len(positive):
        raise ValueError(f"axis must name at least one feature axis, each once, got {axis!r}.")
    return tuple(positive)


def apply_layer(
    x: Array,
    affine: Affine,
    stats: RunningStats,
    *,
    axis: int | Sequence[int],
    dtype: Any,
    use_running_average: bool,
    mask: Array | None = None,
    epsilon: float,
    **options,
) -> tuple[Array, RunningStats]:
    """`batch_norm` or `normalize` over any feature axes, with the result in `dtype`.

    `affine` and `stats` have the shape of the feature axes; `options` go to `batch_norm`.
    """
    axes = feature_axes(x.ndim, axis)
    batch = tuple(a for a in range(x.ndim) if a not in axes)
    order = batch + axes
    shape = tuple(x.shape[a] for a in order)
    features = shape[len(batch) :]

    # A layer promotes as Flax's own does, also where the user has made promotion strict.
    with jax.numpy_dtype_promotion("standard"):
        wide = jnp.promote_types(x.dtype, dtype)
    flat = (*shape[: len(batch)], math.prod(features))
    x = jnp.transpose(x.astype(wide), order).reshape(flat)
    affine = Affine(*(v.reshape(-1) for v in affine))
    stats = RunningStats(*(v.reshape(-1) for v in stats))

    if use_running_average:
        y = normalize(x, *stats, *affine, epsilon=epsilon)
    else:
        if mask is not None:
            mask = _move_mask(mask, order, len(batch), features)
        y, stats = batch_norm(x, affine, stats, mask=mask, epsilon=epsilon, **options)

    back = tuple(order.index(a) for a in range(x.ndim - 1 + len(axes)))
    y = jnp.transpose(y.reshape(shape), back).astype(dtype)
    return y, RunningStats(*(v.reshape(features) for v in stats))


def _move_mask(mask: Array, order: tuple[int, ...], batch: int, features: tuple[int, ...]) -> Array:
    """`mask`, broadcast against the input as it came, for the input with features last."""
    if mask.ndim < len(order):
        return mask
    mask = jnp.transpose(mask, order)
    if all(n == 1 for n in mask.shape[batch:]):
        return mask.reshape(*mask.shape[:batch], 1)
    full = (*mask.shape[:batch], *features)
    return jnp.broadcast_to(mask, full).reshape(*mask.shape[:batch], -1)
