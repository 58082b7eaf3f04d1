"""Recalibration of an NNX model: a copy of it records what its layers normalise."""

import inspect
from collections.abc import Callable, Iterable
from functools import cache, partial
from typing import Any

import jax
from flax import nnx

from jbn._flax.moments import (
    call_arguments,
    is_frozen,
    layer_moments,
    nothing_seen,
    population_call,
)
from jbn._recalibrate import Drift, population, replace_stats
from jbn._types import Moments, RunningStats

# Kept beside a layer's mean and var while it runs: the leaves of its `Moments`.
_SEEN = ("seen_mean", "seen_var", "seen_size", "seen_remainder")


def recalibrate(
    model: nnx.Module,
    batches: Iterable[Any],
    *,
    call: Callable[[Any, Any], Any] = lambda model, batch: model(batch),
    progress: bool = False,
    is_norm: Callable[[Any], bool] = lambda layer: False,
) -> dict[str, Drift]:
    """Puts the statistics of the population into `model`; returns how far the old ones were.

    Runs the model as it is set, which must be as in training: `model.train()`. All layers in one
    sweep, each batch normalised by its own statistics as the layer's variant says
    (`Variant.population`): `Ghost`, `Renorm` and `Noisy(...)` as `Standard()`, `Uncentered()` as
    itself. A layer with `use_running_average` is frozen and stays as it is. Works for
    `jbn.nnx.BatchNorm` and `flax.nnx.BatchNorm`, inside `nnx.scan`, `nnx.vmap` and `nnx.remat`
    too. Random streams begin anew with each batch.

    Args:
      model: its `mean` and `var` change, all at the end: not at all if `batches` fails half-way.
      batches: inputs, of any sizes: `(image for image, label in loader)`.
      call: how to call a model with a batch: `lambda model, batch: model(batch["image"])`.
      progress: show a progress bar on stderr.
      is_norm: whether a module that is no `flax.nnx.BatchNorm` is one by its interface: attributes
        `use_running_average`, `axis`, `epsilon`, `mean` and `var`, and an argument `x`.

    Returns:
      A `jbn.Drift` for each layer by its path.

    Raises:
      ValueError: if there is no batch, or no layer normalised with a batch's own statistics.

    >>> import jax.numpy as jnp
    >>> from jbn.nnx import BatchNorm
    >>> model = BatchNorm(1, rngs=nnx.Rngs(0))
    >>> report = recalibrate(model, [jnp.array([[1.0], [7.0]]), jnp.array([[4.0]])])
    >>> print(model.mean[...], model.var[...])
    [4.] [6.]
    """
    listener = nnx.clone(model)
    for layer in _layers(listener, is_norm).values():
        for name, leaf in zip(_SEEN, jax.tree.leaves(nothing_seen(layer.mean.shape))):
            setattr(layer, name, nnx.BatchStat(leaf))
        layer.__class__ = _listening(type(layer))
    graphdef, state = nnx.split(listener)

    @jax.jit
    def run(state, batch):
        copy = nnx.merge(graphdef, state)
        call(copy, batch)
        return {
            path: Moments(*(getattr(layer, name)[...] for name in _SEEN))
            for path, layer in _layers(copy, is_norm).items()
        }

    found = population(partial(run, state), batches, progress=progress)
    if not any(moments.size.any() for moments in found.values()):
        raise ValueError(
            "no batch norm ran with the statistics of a batch. Call model.train() before."
        )
    report = {}
    for path, layer in _layers(model, is_norm).items():
        if found[path].size.any():
            old = RunningStats(layer.mean[...], layer.var[...])
            (layer.mean[...], layer.var[...]), report[path] = replace_stats(
                old, found[path], layer.epsilon
            )
    return report


def _layers(model: nnx.Module, is_norm: Callable[[Any], bool]) -> dict[str, Any]:
    return {
        "/".join(map(str, path)): node
        for path, node in nnx.iter_graph(model)
        if isinstance(node, nnx.BatchNorm) or (isinstance(node, nnx.Module) and is_norm(node))
    }


@cache
def _listening(kind: type) -> type:
    """`kind` that also notes what it is called with."""

    def __call__(self, *args, **kwargs):
        given = call_arguments(self, args, kwargs)
        if not is_frozen(self, given):
            seen = Moments(*(getattr(self, name)[...] for name in _SEEN))
            variant, changed = population_call(self, given)
            seen = layer_moments(self, given, variant, seen)
            kwargs |= changed
            for name, leaf in zip(_SEEN, jax.tree.leaves(seen)):
                getattr(self, name)[...] = leaf
        return kind.__call__(self, *args, **kwargs)  # type: ignore[attr-defined]

    __call__.__signature__ = inspect.signature(kind.__call__)
    return type(kind.__name__, (kind,), {"__call__": __call__})
