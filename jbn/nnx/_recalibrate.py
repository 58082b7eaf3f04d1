"""Recalibration of an NNX model: its layers' calls are intercepted and measured, in a copy."""

from collections.abc import Callable, Iterable
from functools import partial
from typing import Any

import jax
from flax import nnx

from jbn._flax.moments import empty_moments, observe, recalibrated_stats
from jbn._recalibrate import Drift
from jbn._types import Moments, RunningStats
from jbn.nnx._intercept import intercepted, layers

# Kept beside a layer's mean and var while it runs: the leaves of its `Moments`.
_RECORDED = ("recorded_mean", "recorded_var", "recorded_size", "recorded_remainder")


def recalibrate(
    model: nnx.Module,
    batches: Iterable[Any],
    *,
    call: Callable[[Any, Any], Any] = lambda model, batch: model(batch),
    is_norm: Callable[[Any], bool] = lambda layer: False,
) -> dict[str, Drift]:
    """Replaces the running statistics in `model` by those of the population.

    Runs the model as it is set, which must be as in training: `model.train()`. All layers in one
    sweep, each batch normalised by its own statistics as the layer's variant says
    (`Variant.population`): `Ghost`, `Renorm` and `Noisy(...)` as `Standard()`, `Uncentered()` as
    itself. A layer with `use_running_average` is frozen and stays as it is. Works for
    `jbn.nnx.BatchNorm` and `flax.nnx.BatchNorm`, inside `nnx.scan`, `nnx.vmap` and `nnx.remat`
    too. Random streams begin anew with each batch.

    Args:
      model: its `mean` and `var` change, all at the end: not at all if `batches` fails half-way.
      batches: inputs, of any sizes: `(image for image, label in loader)`. Wrap them in `tqdm` to
        see progress.
      call: how to call a model with a batch: `lambda model, batch: model(batch["image"])`.
      is_norm: whether a module that is no `flax.nnx.BatchNorm` is one by its interface: attributes
        `use_running_average`, `axis`, `epsilon`, `mean` and `var`, and an argument `x`.

    Returns:
      A `jbn.Drift` for each layer by its path: how far the old ones were.

    Raises:
      ValueError: if there is no batch, or no layer normalised with a batch's own statistics.

    >>> import jax.numpy as jnp
    >>> from jbn.nnx import BatchNorm
    >>> model = BatchNorm(1, rngs=nnx.Rngs(0))
    >>> report = recalibrate(model, [jnp.array([[1.0], [7.0]]), jnp.array([[4.0]])])
    >>> print(model.mean[...], model.var[...])
    [4.] [6.]
    """

    def is_layer(node):
        return isinstance(node, nnx.BatchNorm) or is_norm(node)

    def record(path, layer, call, args, kwargs):
        def load():
            return Moments(*(getattr(layer, name)[...] for name in _RECORDED))

        def store(moments):
            for name, leaf in zip(_RECORDED, jax.tree.leaves(moments)):
                getattr(layer, name)[...] = leaf

        return call(*args, **observe(layer, args, kwargs, load, store))

    listener = intercepted(model, is_layer, record)
    for layer in layers(listener, is_layer).values():
        for name, leaf in zip(_RECORDED, jax.tree.leaves(empty_moments(layer.mean.shape))):
            setattr(layer, name, nnx.BatchStat(leaf))
    graphdef, state = nnx.split(listener)

    @jax.jit
    def run(state, batch):
        copy = nnx.merge(graphdef, state)
        call(copy, batch)
        return {
            path: Moments(*(getattr(layer, name)[...] for name in _RECORDED))
            for path, layer in layers(copy, is_layer).items()
        }

    def stats_of(path):
        return RunningStats(norms[path].mean[...], norms[path].var[...])

    norms = layers(model, is_layer)
    epsilons = {path: norm.epsilon for path, norm in norms.items()}
    advice = "Call model.train() before."
    new, report = recalibrated_stats(partial(run, state), batches, stats_of, epsilons, advice)
    for path, stats in new.items():
        norms[path].mean[...], norms[path].var[...] = stats
    return report
