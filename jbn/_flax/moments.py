"""Recording what the layers of both Flax front-ends normalise, while a model runs: recalibration.

Each layer runs with the variant whose moments are those of the population, and these are recorded.
"""

import inspect
from typing import Any

import jax
import jax.numpy as jnp

from jbn._batch import Variant, population_of
from jbn._batch_norm import variant_moments
from jbn._moments import pool_moments
from jbn._numerics.arrays import as_array
from jbn._numerics.layout import layout
from jbn._types import Moments
from jbn._variants import Standard


def call_arguments(layer: Any, args: tuple, kwargs: dict) -> dict[str, Any]:
    """The arguments of a call of `layer` by name, however they were given."""
    return inspect.signature(type(layer).__call__).bind(layer, *args, **kwargs).arguments


def population_call(layer: Any, call: dict[str, Any]) -> tuple[Variant, dict[str, Variant]]:
    """The variant that a layer called with `call` is measured by, and what makes it run with it."""
    if not hasattr(layer, "variant"):  # Flax's own
        return Standard(), {}
    given = call.get("variant")
    variant = population_of(layer.variant if given is None else given)
    return variant, {"variant": variant}


def layer_moments(layer: Any, call: dict[str, Any], variant: Variant, seen: Moments) -> Moments:
    """The moments of what `layer` normalises in a call, pooled with those already `seen`."""
    x, mask = as_array(call["x"], "x"), call.get("mask")
    where = layout(x, layer.axis)
    if mask is not None:
        mask = where.flatten_mask(as_array(mask, "mask"))
    moments = variant_moments(where.flatten(x), variant, mask=mask, epsilon=layer.epsilon)
    moments = jax.tree.map(lambda leaf: leaf.reshape(seen.mean.shape), moments)
    return pool_moments(jax.tree.map(lambda *pair: jnp.stack(pair), seen, moments))


def is_frozen(layer: Any, call: dict[str, Any]) -> bool:
    """Whether `layer` normalises with its running statistics in a call."""
    given = call.get("use_running_average")
    return bool(layer.use_running_average if given is None else given)


def nothing_seen(shape: tuple[int, ...]) -> Moments:
    return Moments(jnp.zeros(shape), jnp.zeros(shape), jnp.zeros(shape))
