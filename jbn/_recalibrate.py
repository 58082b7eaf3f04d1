"""Recalibration: statistics of the population in place of a running average.

A running average remembers weights that are gone, and weighs the last batches most. One sweep over
the data with the final weights gives the mean and variance that it only estimates.
"""

from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jbn._moments import pool_moments
from jbn._numerics.arrays import native
from jbn._numerics.values import check_epsilon
from jbn._pytrees import register_record
from jbn._running import update_running
from jbn._types import Moments, RunningStats


@register_record
class Drift(NamedTuple):
    """Distance of one layer's old running statistics from those of the population.

    Attributes:
      mean: largest |old mean - mean| over the features, in deviations of the population,
        sqrt(var + epsilon).
      var: largest ratio of the two variances, epsilon added to both, the larger one on top: 1 is
        equal, 2 is double or half.
      size: examples behind each number, the smallest over the features.
    """

    mean: float
    var: float
    size: float


def recalibrate(
    moments: Callable[[Any], Any],
    stats: Any,
    batches: Iterable[Any],
    *,
    epsilon: float = 1e-5,
) -> tuple[Any, dict[str, Drift]]:
    r"""Replaces running statistics by those of the population ("precise batch norm").

    $$n = \sum_k n_k, \qquad \mu = \sum_k \frac{n_k}{n} \mu_k, \qquad
      \sigma^2 = \sum_k \frac{n_k}{n} \left(\sigma_k^2 + (\mu_k - \mu)^2\right)$$

    All layers in one sweep: each batch is normalised by its own statistics, as in training, so
    that a layer sees what the layers below send it in training. Batches may differ in size; a
    sum kept in float64 makes their order and their number irrelevant. `stats` is left as it is.

    Args:
      moments: from a batch to the `Moments` of what each layer normalises, in the structure of
        `stats`. It is compiled, once for each shape of a batch.
      stats: one `RunningStats`, or any tree of them. Their types do not change.
      batches: what to call `moments` with; `tqdm(batches)` shows progress. A feature without
        evidence in a batch (nothing counted, or not finite) is left out of it; one without any
        keeps its old statistics.
      epsilon: only for the report.

    Returns:
      The new `stats`, and for each layer, by its path in `stats`, its `Drift`.

    Raises:
      ValueError: if there is no batch, or `moments` has another structure than `stats`.
      TypeError: if `batches` is an array.

    Wu & Johnson 2021 (arXiv:2105.07576), section 3.

    >>> import jax.numpy as jnp
    >>> from jbn import batch_moments, init
    >>> batches = [jnp.array([[1.0], [7.0]]), jnp.array([[4.0]])]
    >>> old = {"norm": init(1)[1]}
    >>> stats, report = recalibrate(lambda x: {"norm": batch_moments(x)}, old, batches)
    >>> print(stats["norm"].mean, stats["norm"].var)
    [4.] [6.]
    >>> print(f"{report['norm'].mean:.2f} {report['norm'].var:.2f} {report['norm'].size:.0f}")
    1.63 6.00 3
    """
    check_epsilon(epsilon, jnp.float32)
    pooled = pool_batches(jax.jit(moments), batches)
    layers, structure = jax.tree.flatten_with_path(
        stats, is_leaf=lambda node: isinstance(node, RunningStats)
    )
    if (given := jax.tree.structure(pooled, is_leaf=_is_moments)) != structure:
        raise ValueError(f"moments gave the structure {given}, stats have {structure}.")
    new, report = [], {}
    for (path, old), layer in zip(layers, structure.flatten_up_to(pooled)):
        replaced, drift = replace_stats(old, layer, epsilon)
        new.append(replaced)
        report[jax.tree_util.keystr(path, simple=True, separator="/")] = drift
    return jax.tree.unflatten(structure, new), report


def pool_batches(moments: Callable[[Any], Any], batches: Iterable[Any]) -> Any:
    """Pools, in float64, the `Moments` that `moments` gives for each batch."""
    if isinstance(batches, jax.Array | np.ndarray):
        raise TypeError(
            f"batches must be an iterable of batches, got an array of shape {batches.shape}, whose "
            "parts are examples. Give a list of it: [x]."
        )
    total = None
    for batch in batches:
        try:
            measured = moments(native(batch))
        except Exception as error:
            if isinstance(batch, tuple | list):
                error.add_note(
                    f"A batch was a {type(batch).__name__} of {len(batch)}, and was passed on "
                    "whole. If its first part is the input: (x for x, *_ in batches)."
                )
            raise
        with jax.enable_x64(True):
            total = _to_float64(measured) if total is None else _pool(total, measured)
    if total is None:
        raise ValueError(
            "batches held no batch. A generator can be read only once: make a new one."
        )
    return total


def replace_stats(old: RunningStats, pooled: Moments, epsilon: float) -> tuple[RunningStats, Drift]:
    """Returns `pooled` in the types of `old`, and how far apart they were."""
    with jax.enable_x64(True):
        new, drift = _replace(old, pooled, epsilon)
    return new, Drift(*map(float, drift))


@jax.jit
def _replace(old: RunningStats, pooled: Moments, epsilon: float) -> tuple[RunningStats, list]:
    new = update_running(old, pooled, momentum=0.0)
    old_mean, mean = (stats.mean.astype(jnp.float64) for stats in (old, new))
    old_var, var = (stats.var.astype(jnp.float64) + epsilon for stats in (old, new))
    apart = jnp.max(jnp.abs(old_mean - mean) / jnp.sqrt(var))
    ratio = jnp.max(jnp.maximum(old_var / var, var / old_var))
    return new, [apart, ratio, jnp.min(pooled.size)]


def _is_moments(node: Any) -> bool:
    return isinstance(node, Moments)


@jax.jit
def _to_float64(measured: Any) -> Any:
    """Returns `measured` in float64, its features without evidence at size zero."""

    def one(moments: Moments) -> Moments:
        sound = jnp.isfinite(moments.mean) & jnp.isfinite(moments.var)
        mean, var, size, remainder = (
            jnp.where(sound, leaf, 0).astype(jnp.float64) for leaf in jax.tree.leaves(moments)
        )
        return Moments(mean + remainder, var, size)

    return jax.tree.map(one, measured, is_leaf=_is_moments)


@jax.jit
def _pool(total: Any, measured: Any) -> Any:
    def one(a: Moments, b: Moments) -> Moments:
        return pool_moments(jax.tree.map(lambda *pair: jnp.stack(pair), a, b))

    return jax.tree.map(one, total, _to_float64(measured), is_leaf=_is_moments)
