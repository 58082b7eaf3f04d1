"""What the Flax front-ends share: feature axes anywhere, Flax's masks, a choice of output type."""

import math
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array

from jbn._batch_norm import batch_norm
from jbn._complex import complex_batch_norm, complex_normalize
from jbn._normalize import normalize
from jbn._types import Affine, AxisName, RunningStats


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
    mask: Array | None,
    epsilon: float,
    axis_name: AxisName | None,
    **options,
) -> tuple[Array, RunningStats]:
    """`batch_norm` or `normalize` over any feature axes, with the result in `dtype`.

    `affine` and `stats` hold one number per feature, in any shape; `options` go to `batch_norm`.
    As in Flax, one example is a batch too: it comes out as the bias, and the running variance,
    of which it says nothing, stays.
    """
    axes = feature_axes(x.ndim, axis)
    order = (*(a for a in range(x.ndim) if a not in axes), *axes)
    moved = tuple(x.shape[a] for a in order)
    batch, features = moved[: -len(axes)], moved[-len(axes) :]
    rows = batch or (1,)

    # A layer promotes as Flax's own does, also where the user has made promotion strict.
    with jax.numpy_dtype_promotion("standard"):
        wide = jnp.promote_types(x.dtype, dtype)
    x = jnp.transpose(x.astype(wide), order).reshape(*rows, math.prod(features))
    affine = Affine(*(v.reshape(-1) for v in affine))
    flat = RunningStats(*(v.reshape(-1) for v in stats))
    is_complex = jnp.iscomplexobj(x)

    if use_running_average:
        infer = complex_normalize if is_complex else normalize
        y = infer(x, *flat, *affine, epsilon=epsilon)
    else:
        if mask is not None:
            mask = _move_mask(jnp.asarray(mask), order, batch, features)
        elif axis_name is None and math.prod(rows) == 1:
            mask = jnp.ones((1,) * x.ndim, bool)  # says that one example is meant
        train = complex_batch_norm if is_complex else batch_norm
        options |= {"mask": mask, "epsilon": epsilon, "axis_name": axis_name}
        y, flat = train(x, affine, flat, **options)

    back = tuple(order.index(a) for a in range(len(order)))
    y = jnp.transpose(y.reshape(moved), back).astype(dtype)
    return y, RunningStats(*(new.reshape(old.shape) for new, old in zip(flat, stats)))


def _move_mask(mask: Array, order: tuple[int, ...], batch: tuple, features: tuple) -> Array:
    """`mask`, which fits the input as it came, for the input with its features last.

    Fewer axes than the input's are flags per example if they fit the leading batch axes, and
    else broadcast against the input from the right, as in NumPy and Flax.
    """
    if 0 < mask.ndim <= len(batch) and mask.shape == batch[: mask.ndim]:
        return mask
    shape = (1,) * (len(order) - mask.ndim) + mask.shape
    moved = tuple(shape[a] for a in order) if len(shape) == len(order) else ()
    if not moved or any(m not in (1, n) for m, n in zip(moved, batch + features)):
        came = tuple((batch + features)[order.index(a)] for a in range(len(order)))
        raise ValueError(
            f"mask of shape {mask.shape} does not fit x of shape {came}. It must be flags per "
            f"example, {batch}, or broadcast against x."
        )
    mask = jnp.transpose(mask.reshape(shape), order)
    if any(n > 1 for n in moved[len(batch) :]):
        mask = jnp.broadcast_to(mask, (*moved[: len(batch)], *features))
    return mask.reshape(*(moved[: len(batch)] or (1,)), -1)
