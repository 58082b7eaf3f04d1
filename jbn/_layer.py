"""What the Flax front-ends share: feature axes anywhere, and a choice of output type."""

import math
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array

from jbn._batch_norm import batch_norm
from jbn._complex import complex_batch_norm, complex_normalize
from jbn._layout import layout
from jbn._normalize import normalize
from jbn._types import Affine, AxisName, RunningStats


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
    where = layout(x, axis)
    # A layer promotes as Flax's own does, also where the user has made promotion strict.
    with jax.numpy_dtype_promotion("standard"):
        wide = jnp.promote_types(x.dtype, dtype)
    given, x = x, where.flatten(x.astype(wide))
    affine = Affine(*(v.reshape(-1) for v in affine))
    flat = RunningStats(*(v.reshape(-1) for v in stats))
    is_complex = jnp.iscomplexobj(x)

    if use_running_average:
        infer = complex_normalize if is_complex else normalize
        y = infer(x, *flat, *affine, epsilon=epsilon)
    else:
        if mask is not None:
            mask = where.flatten_mask(jnp.asarray(mask))
        elif axis_name is None and math.prod(where.batch) == 1:
            mask = jnp.ones((1,) * x.ndim, bool)  # says that one example is meant
        train = complex_batch_norm if is_complex else batch_norm
        options |= {"mask": mask, "epsilon": epsilon, "axis_name": axis_name}
        y, flat = train(x, affine, flat, **options)

    y = where.restore(y, given).astype(dtype)
    return y, RunningStats(*(new.reshape(old.shape) for new, old in zip(flat, stats)))
