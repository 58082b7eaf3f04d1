"""Recalibration of both Flax front-ends: what a model's norms normalise, recorded while it runs.

Each layer runs with the variant whose moments are those of the population, and these are recorded.
"""

from collections.abc import Callable, Iterable
from typing import Any

import jax
import jax.numpy as jnp

from jbn._batch import Variant, population_of
from jbn._batch_norm import variant_moments
from jbn._flax.calls import call_arguments, is_frozen
from jbn._moments import pool_moments
from jbn._numerics.arrays import as_array
from jbn._numerics.layout import Layout
from jbn._recalibrate import Drift, pool_batches, replace_stats
from jbn._types import Moments, RunningStats
from jbn._variants import Standard


def recalibrated_stats(
    run: Callable[[Any], dict[str, Moments]],
    batches: Iterable[Any],
    stats_of: Callable[[str], RunningStats],
    epsilons: dict[str, float],
    advice: str,
) -> tuple[dict[str, RunningStats], dict[str, Drift]]:
    """Returns the statistics of the population and the `Drift` of each layer, by path.

    `run` gives the moments of each layer for a batch, of size 0 where the layer measured nothing:
    it is frozen. `epsilons` may be filled while it runs.
    """
    pooled = pool_batches(run, batches)
    new, report = {}, {}
    for path, epsilon in epsilons.items():
        if path in pooled and pooled[path].size.any():
            new[path], report[path] = replace_stats(stats_of(path), pooled[path], epsilon)
    if not new:
        raise ValueError(f"no batch norm ran with the statistics of a batch. {advice}")
    return new, report


def observe(
    layer: Any,
    args: tuple,
    kwargs: dict[str, Any],
    load: Callable[[], Moments],
    store: Callable[[Moments], None],
) -> dict[str, Any]:
    """Pools what `layer` normalises in a call with its moments; returns `kwargs` to run it with."""
    call = call_arguments(layer, args, kwargs)
    if is_frozen(layer, call):
        return kwargs
    variant = _population_variant(layer, call)
    store(_pool_call(layer, call, variant, load()))
    return kwargs | ({"variant": variant} if hasattr(layer, "variant") else {})


def empty_moments(shape: tuple[int, ...]) -> Moments:
    return Moments(jnp.zeros(shape), jnp.zeros(shape), jnp.zeros(shape))


def _population_variant(layer: Any, call: dict[str, Any]) -> Variant:
    if not hasattr(layer, "variant"):  # Flax's own
        return Standard()
    given = call.get("variant")
    return population_of(layer.variant if given is None else given)


def _pool_call(layer: Any, call: dict[str, Any], variant: Variant, earlier: Moments) -> Moments:
    """Pools the moments of what `layer` normalises in a call with those of its `earlier` calls."""
    x, mask = as_array(call["x"], "x"), call.get("mask")
    layout = Layout.of(x, layer.axis)
    if mask is not None:
        mask = layout.flatten_mask(as_array(mask, "mask"))
    moments = variant_moments(layout.flatten(x), variant, mask=mask, epsilon=layer.epsilon)
    moments = jax.tree.map(lambda leaf: leaf.reshape(earlier.mean.shape), moments)
    return pool_moments(jax.tree.map(lambda *pair: jnp.stack(pair), earlier, moments))
