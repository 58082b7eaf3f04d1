"""Batch norm over any feature axes, with a choice of output type: the body of both Flax layers."""

import math
from collections.abc import Sequence
from typing import Any

import jax.numpy as jnp
from jaxtyping import Array

from jbn._batch_norm import batch_norm
from jbn._flax.complex import complex_batch_norm, complex_normalize
from jbn._normalize import normalize
from jbn._numerics.arrays import as_array, common_type
from jbn._numerics.layout import layout
from jbn._numerics.values import numbers_to_device
from jbn._types import Affine, AxisName, RunningStats


def apply_layer(
    x: Array,
    scale: Array | None,
    bias: Array | None,
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
    """Calls `batch_norm` or `normalize` over any feature axes, with the result in `dtype`.

    `scale`, `bias` and `stats` hold one number per feature, in any shape, and None is 1 or 0;
    `options` go to `batch_norm`. As in Flax, one example is a batch too: it comes out as the bias,
    and the running variance, of which it says nothing, stays.
    """
    where = layout(x, axis)
    given, x = x, where.flatten(x.astype(common_type(x.dtype, dtype)))
    flat = RunningStats(*(v.reshape(-1) for v in stats))
    with numbers_to_device():
        scale = jnp.ones_like(flat.var) if scale is None else scale.reshape(-1)
        bias = jnp.zeros_like(flat.var) if bias is None else bias.reshape(-1)
    is_complex = jnp.iscomplexobj(x)

    if use_running_average:
        infer = complex_normalize if is_complex else normalize
        y = infer(x, *flat, scale, bias, epsilon=epsilon)
    else:
        if mask is not None:
            mask = where.flatten_mask(as_array(mask, "mask"))
        elif axis_name is None and math.prod(where.batch) == 1:
            with numbers_to_device():
                mask = jnp.ones((1,) * x.ndim, bool)  # tells batch_norm that one is intended
        train = complex_batch_norm if is_complex else batch_norm
        options |= {"mask": mask, "epsilon": epsilon, "axis_name": axis_name}
        y, flat = train(x, Affine(scale, bias), flat, **options)

    y = where.restore(y, given).astype(dtype)
    return y, RunningStats(*(new.reshape(old.shape) for new, old in zip(flat, stats)))


def next_step(steps: Array) -> Array:
    """Returns the count after one more training call; it stays at the largest of its type."""
    with numbers_to_device():
        return steps + jnp.where(steps < jnp.iinfo(steps.dtype).max, 1, 0)
