"""Recalibration of a Linen model: an interceptor records what its layers normalise."""

from collections.abc import Callable, Iterable, Mapping
from functools import partial
from typing import Any

import flax.linen as nn
import jax
from flax.traverse_util import flatten_dict, unflatten_dict

from jbn._flax.moments import (
    call_arguments,
    is_frozen,
    layer_moments,
    nothing_seen,
    population_call,
)
from jbn._numerics.layout import feature_axes
from jbn._recalibrate import Drift, population, replace_stats
from jbn._types import RunningStats

# Kept beside a layer's mean and var while it runs, so that nn.scan and nn.vmap lift it with them.
_SEEN = "moments_seen"


def recalibrate(
    model: nn.Module,
    variables: Mapping[str, Any],
    batches: Iterable[Any],
    *,
    progress: bool = False,
    is_norm: Callable[[nn.Module], bool] = lambda layer: False,
    **kwargs: Any,
) -> tuple[dict[str, Any], dict[str, Drift]]:
    """`variables` with the running statistics of the population, and how far the old ones were.

    Runs `model.apply(variables, batch, **kwargs)` as in training: pass what your model takes for
    that, `train=True` for example, or `rngs`. All layers in one sweep, each batch normalised by
    its own statistics as the layer's variant says (`Variant.population`): `Ghost`, `Renorm` and
    `Noisy(...)` as `Standard()`, `Uncentered()` as itself. A layer that runs with
    `use_running_average` is frozen and stays as it is.
    Works for `jbn.linen.BatchNorm` and `flax.linen.BatchNorm`, inside `nn.scan`, `nn.vmap` and
    `nn.remat` too. For models that take more than one array,
    `method=lambda model, batch: model(batch["image"], batch["mask"], train=True)`.

    Args:
      model, variables: left as they are.
      batches: inputs, of any sizes: `(image for image, label in loader)`.
      progress: show a progress bar on stderr.
      is_norm: whether a layer that is no `flax.linen.BatchNorm` is one by its interface: attributes
        `use_running_average`, `axis`, `epsilon`, an argument `x`, and `mean` and `var` of
        "batch_stats".
      **kwargs: for `model.apply`.

    Returns:
      New variables, and a `jbn.Drift` for each layer by its path.

    Raises:
      ValueError: if there is no batch, or no layer normalised with a batch's own statistics.

    >>> import jax.numpy as jnp
    >>> from jbn.linen import BatchNorm
    >>> model = BatchNorm(use_running_average=False)
    >>> variables = model.init(jax.random.key(0), jnp.ones((2, 1)))
    >>> batches = [jnp.array([[1.0], [7.0]]), jnp.array([[4.0]])]
    >>> variables, report = recalibrate(model, variables, batches)
    >>> print(variables["batch_stats"]["mean"], variables["batch_stats"]["var"])
    [4.] [6.]
    """
    epsilons: dict[str, float] = {}

    def listen(next_fun, args, kwargs, context):
        layer = context.module
        if isinstance(layer, nn.BatchNorm) or is_norm(layer):
            epsilons["/".join(layer.path)] = layer.epsilon
            kwargs |= _record(layer, call_arguments(layer, args, kwargs))
        return next_fun(*args, **kwargs)

    @jax.jit
    def run(variables, batch):
        with nn.intercept_methods(outermost_calls(listen)):
            _, updates = model.apply(variables, batch, mutable=["batch_stats"], **kwargs)
        flat = flatten_dict(updates.get("batch_stats", {}))
        return {"/".join(path[:-1]): seen for path, seen in flat.items() if path[-1] == _SEEN}

    found = population(partial(run, variables), batches, progress=progress)
    if not found:
        raise ValueError(
            "no batch norm ran with the statistics of a batch. Pass what your model takes for "
            "training, train=True for example."
        )
    report: dict[str, Drift] = {}
    stats: dict[tuple[str, ...], Any] = dict(flatten_dict(variables["batch_stats"]))
    for name in (name for name in epsilons if name in found):
        path = name.split("/") if name else ()
        mean, var = (*path, "mean"), (*path, "var")
        old = RunningStats(stats[mean], stats[var])
        (stats[mean], stats[var]), report[name] = replace_stats(old, found[name], epsilons[name])
    return {**variables, "batch_stats": unflatten_dict(stats)}, report


def outermost_calls(listen: Callable[..., Any]) -> Callable[..., Any]:
    """An interceptor of `__call__` alone, and not of that of a base class within it."""
    running: set[Any] = set()

    def intercept(next_fun, args, kwargs, context):
        call = (context.module.path, context.module.scope)
        if context.method_name != "__call__" or call in running:
            return next_fun(*args, **kwargs)
        running.add(call)
        try:
            return listen(next_fun, args, kwargs, context)
        finally:
            running.discard(call)

    return intercept


def _record(layer: Any, call: dict[str, Any]) -> dict[str, Any]:
    """Notes the moments of what `layer` is called with; the call's new arguments."""
    if is_frozen(layer, call):
        return {}
    x = call["x"]
    variant, changed = population_call(layer, call)
    shape = tuple(x.shape[axis] for axis in feature_axes(x.ndim, layer.axis))
    seen = layer.get_variable("batch_stats", _SEEN, nothing_seen(shape))
    layer.put_variable("batch_stats", _SEEN, layer_moments(layer, call, variant, seen))
    return changed
