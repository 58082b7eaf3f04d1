"""Batch norm in training: a batch normalised by a variant, and running statistics moved."""

from collections.abc import Iterable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Scalar

from jbn._batch import MEASURED, Batch, Variant
from jbn._numerics.arrays import (
    broadcast_mask,
    check_batch,
    check_features,
    check_float_dtype,
    statistics_dtype,
)
from jbn._numerics.devices import restrict_axis
from jbn._numerics.sharding import like_features, mesh_of
from jbn._numerics.values import (
    as_record,
    check_epsilon,
    check_momentum,
    check_num_features,
    check_variant,
    numbers_to_device,
)
from jbn._pytrees import as_static
from jbn._running import update_by_weights, update_weights
from jbn._types import Affine, AxisName, Moments, RunningStats
from jbn._variants import Standard


def init(num_features: int, dtype: Any = jnp.float32) -> tuple[Affine, RunningStats]:
    """Returns scale 1, bias 0 of type `dtype`; running mean 0, variance 1 of at least float32.

    >>> affine, stats = init(3)
    >>> print(affine.scale, affine.bias, stats.mean, stats.var)
    [1. 1. 1.] [0. 0. 0.] [0. 0. 0.] [1. 1. 1.]
    """
    features = check_num_features(num_features)
    dtype = check_float_dtype(dtype)
    kept = statistics_dtype(dtype)
    with numbers_to_device():
        affine = Affine(jnp.ones(features, dtype), jnp.zeros(features, dtype))
        return affine, RunningStats(jnp.zeros(features, kept), jnp.ones(features, kept))


def batch_norm(
    x: Float[Array, "*batch C"],
    affine: Affine,
    stats: RunningStats,
    *,
    variant: Variant = Standard(),
    momentum: float | Scalar = 0.99,
    epsilon: float | Scalar = 1e-5,
    mask: Array | None = None,
    axis_name: AxisName | None = None,
    axis_index_groups: Iterable[Iterable[int]] | None = None,
) -> tuple[Float[Array, "*batch C"], RunningStats]:
    r"""Normalises a batch with its own statistics and returns the updated running ones.

    $$y = \gamma \frac{x - \mu_B}{\sqrt{\sigma_B^2 + \epsilon}} + \beta, \qquad
      \text{stats} \leftarrow m \cdot \text{stats} + (1 - m) \cdot (\mu_B, \sigma_B^2)$$

    This is the training step; inference is `normalize(x, *stats, *affine)`. Compiled once for
    each shape, type and variant; `momentum` and `epsilon` may change without recompiling. It
    differentiates in every mode and to any order, and composes with all of JAX's transformations.
    Gradients flow through $\mu_B$ and $\sigma_B^2$ into `x`, never through the running statistics.

    Args:
      x: floating-point, features last; at least two examples. One example of shape (C,) is part
        of a batch only with an `axis_name`.
      affine: scale and bias, each (C,).
      stats: running mean and (biased) variance, each (C,).
      variant: the algorithm, for example `Standard()`.
      momentum: the weight kept on the *old* running statistics, in [0, 1]. PyTorch's 0.1 is 0.9.
      epsilon: added to the variance, in its units; positive.
      mask: True where an example counts: one flag per example (`x.shape[:-1]`) or per element.
        Excluded entries may hold NaN, which affects neither values nor gradients.
      axis_name: axis, or axes, of `shard_map`, `vmap` or `pmap` that the batch is spread over.
        Under plain `jit` on sharded arrays leave it out: the batch is already the whole one.
      axis_index_groups: lists of indices along `axis_name`, each index in one of them; the
        devices of a list share one batch, as in `[[0, 1], [2, 3]]`. By default all do.

    Returns:
      `y`, of the shape and type of `x`, and the new `RunningStats`, of the types of `stats`. A
      feature whose batch holds no evidence (nothing counted, or not finite) keeps its `stats`.

    Raises:
      TypeError, ValueError: naming the argument, what came and what was needed.
      NameError: if `axis_name` is not bound by a transformation around the call.

    Ioffe & Szegedy 2015 (arXiv:1502.03167), Algorithms 1 and 2.

    >>> import jax.numpy as jnp
    >>> x = jnp.array([[1.0, 2.0], [5.0, 6.0], [9.0, 10.0]])
    >>> y, stats = batch_norm(x, *init(2))
    >>> print(y.round(4))
    [[-1.2247 -1.2247]
     [ 0.      0.    ]
     [ 1.2247  1.2247]]
    >>> print(stats.mean, stats.var)
    [0.05 0.06] [1.0966667 1.0966667]
    """
    return apply_batch_norm(
        x,
        affine,
        stats,
        may_be_single=axis_name is not None or mask is not None,
        variant=variant,
        momentum=momentum,
        epsilon=epsilon,
        mask=mask,
        axis_name=axis_name,
        axis_index_groups=axis_index_groups,
    )


def apply_batch_norm(
    x: Any,
    affine: Any,
    stats: Any,
    *,
    may_be_single: bool,
    variant: Variant,
    momentum: Any,
    epsilon: Any,
    mask: Array | None,
    axis_name: AxisName | None,
    axis_index_groups: Iterable[Iterable[int]] | None,
) -> tuple[Array, RunningStats]:
    """Does what `batch_norm` does, with a batch of one example too if it `may_be_single`."""
    x = check_batch(x, may_be_single=may_be_single)
    affine = as_record("affine", affine, Affine)
    stats = as_record("stats", stats, RunningStats)
    check_features(x, affine=affine, stats=stats)
    momentum = check_momentum(momentum)
    epsilon = check_epsilon(epsilon, statistics_dtype(x.dtype))
    check_variant("variant", variant)
    mask = broadcast_mask(mask, x)
    devices = restrict_axis(axis_name, axis_index_groups)
    with numbers_to_device():
        weights = update_weights(momentum)
        return _batch_norm(x, affine, stats, mask, weights, epsilon, as_static(variant), devices)


_KEEP_MEASURED = jax.checkpoint_policies.save_only_these_names(MEASURED)


@partial(jax.jit, static_argnames="devices")
def _batch_norm(x, affine, given, mask, weights, epsilon, variant, devices):
    y, moments = _normalize(x, affine, given, mask, epsilon, variant, devices)
    return y, update_by_weights(given, moments, *weights)


def variant_moments(x: Array, variant: Variant, *, mask: Array | None, epsilon) -> Moments:
    """Returns the moments of a batch as `variant` takes them, to pool with those of others."""
    x = check_batch(x, may_be_single=True)
    affine, stats = init(x.shape[-1], dtype=statistics_dtype(x.dtype))
    return _normalize(x, affine, stats, broadcast_mask(mask, x), epsilon, variant, None)[1]


def _normalize(x, affine, stats, mask, epsilon, variant, devices):
    affine, stats = jax.tree.map(lambda vector: like_features(vector, x), (affine, stats))

    def run(x, affine, stats, mask, epsilon, variant):
        batch = Batch.of(x, mask, stats.mean, devices)
        y, moments = variant(batch, affine, stats, epsilon=epsilon)
        return y.astype(x.dtype), moments

    if x.dtype != statistics_dtype(x.dtype):
        # What waits for the backward pass is x in its own type, not the same widened.
        run = jax.checkpoint(run, prevent_cse=False, policy=_KEEP_MEASURED)
    with mesh_of(x):
        return run(x, affine, stats, mask, epsilon, variant)
