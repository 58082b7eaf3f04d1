"""Batch norm over any feature axes, with a choice of output type: the body of both Flax layers."""

from collections.abc import Sequence
from functools import partial
from typing import Any

import jax.numpy as jnp
from jaxtyping import Array

from jbn._batch_norm import apply_batch_norm
from jbn._flax.complex import complex_batch_norm, complex_normalize
from jbn._normalize import normalize
from jbn._numerics.arrays import as_array, common_type
from jbn._numerics.layout import Layout
from jbn._numerics.values import numbers_to_device
from jbn._types import Affine, RunningStats


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
    **options: Any,
) -> tuple[Array, RunningStats]:
    """Calls `batch_norm` or `normalize` over any feature axes, with the result in `dtype`.

    `scale`, `bias` and `stats` hold one number per feature, in any shape, and None is 1 or 0;
    `options` go to `batch_norm`. As in Flax, one example is a batch too: it comes out as the bias,
    and the running variance stays.
    """
    layout = Layout.of(x, axis)
    given, x = x, layout.flatten(x.astype(common_type(x.dtype, dtype)))
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
            mask = layout.flatten_mask(as_array(mask, "mask"))
        train = complex_batch_norm if is_complex else partial(apply_batch_norm, may_be_single=True)
        y, flat = train(x, Affine(scale, bias), flat, mask=mask, epsilon=epsilon, **options)

    y = layout.restore(y, given).astype(dtype)
    return y, RunningStats(*(new.reshape(old.shape) for new, old in zip(flat, stats)))


def next_step(steps: Array) -> Array:
    """Returns the count after one more training call; it stays at the largest of its type."""
    with numbers_to_device():
        return steps + jnp.where(steps < jnp.iinfo(steps.dtype).max, 1, 0)
