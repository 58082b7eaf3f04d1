"""What a layer of either Flax front-end would measure, without running it: for recalibration."""

import inspect
from typing import Any

import jax
import jax.numpy as jnp

from jbn._arrays import as_array
from jbn._layout import layout
from jbn._moments import batch_moments, pool_moments
from jbn._types import Moments


def is_batch_norm(module: Any) -> bool:
    """Whether `module` is Flax's layer or one with its interface, ours for example."""
    return hasattr(module, "use_running_average") and hasattr(module, "momentum")


def call_arguments(layer: Any, args: tuple, kwargs: dict) -> dict[str, Any]:
    """The arguments of a call of `layer` by name, however they were given."""
    return inspect.signature(type(layer).__call__).bind(layer, *args, **kwargs).arguments


def layer_moments(x: Any, axis: Any, mask: Any, seen: Moments) -> Moments:
    """The moments of `x` over all axes but `axis`, pooled with those already `seen`."""
    x = as_array(x, "x")
    where = layout(x, axis)
    if mask is not None:
        mask = where.flatten_mask(as_array(mask, "mask"))
    flat = where.flatten(x)
    moments = jax.tree.map(
        lambda leaf: leaf.reshape(seen.mean.shape), batch_moments(flat, mask=mask)
    )
    return pool_moments(jax.tree.map(lambda *pair: jnp.stack(pair), seen, moments))


def nothing_seen(shape: tuple[int, ...]) -> Moments:
    return Moments(jnp.zeros(shape), jnp.zeros(shape), jnp.zeros(shape))
