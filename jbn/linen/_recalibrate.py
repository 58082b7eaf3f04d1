"""Recalibration of a Linen model: its layers' calls are intercepted and measured."""

from collections.abc import Callable, Iterable, Mapping
from functools import partial
from typing import Any

import flax.linen as nn
import jax
from flax.traverse_util import flatten_dict, unflatten_dict

from jbn._flax.moments import empty_moments, observe, recalibrated_stats
from jbn._recalibrate import Drift
from jbn._types import RunningStats
from jbn.linen._intercept import intercepted, path_names

# Kept beside a layer's mean and var while it runs, so that nn.scan and nn.vmap lift it with them.
_RECORDED = "recorded_moments"


def recalibrate(
    model: nn.Module,
    variables: Mapping[str, Any],
    batches: Iterable[Any],
    *,
    is_norm: Callable[[nn.Module], bool] = lambda layer: False,
    **kwargs: Any,
) -> tuple[dict[str, Any], dict[str, Drift]]:
    """Replaces the running statistics in `variables` by those of the population.

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
      batches: inputs, of any sizes: `(image for image, label in loader)`. Wrap them in `tqdm` to
        see progress.
      is_norm: whether a layer that is no `flax.linen.BatchNorm` is one by its interface: attributes
        `use_running_average`, `axis`, `epsilon`, an argument `x`, and `mean` and `var` of
        "batch_stats".
      **kwargs: for `model.apply`.

    Returns:
      New variables, and a `jbn.Drift` for each layer by its path: how far the old ones were.

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

    def record(path, layer, call, args, kwargs):
        def load():
            empty = empty_moments(layer.get_variable("batch_stats", "mean").shape)
            return layer.get_variable("batch_stats", _RECORDED, empty)

        if isinstance(layer, nn.BatchNorm) or is_norm(layer):
            epsilons[path] = layer.epsilon
            store = partial(layer.put_variable, "batch_stats", _RECORDED)
            kwargs = observe(layer, args, kwargs, load, store)
        return call(*args, **kwargs)

    @jax.jit
    def run(variables, batch):
        with intercepted(record):
            _, updates = model.apply(variables, batch, mutable=["batch_stats"], **kwargs)
        flat = flatten_dict(updates.get("batch_stats", {}))
        recorded = (path for path in flat if path[-1] == _RECORDED)
        return {"/".join(path[:-1]): flat[path] for path in recorded}

    def places(path):
        return [(*path_names(path), name) for name in RunningStats._fields]

    def stats_of(path):
        return RunningStats(*(flat[place] for place in places(path)))

    flat: dict[tuple[str, ...], Any] = dict(flatten_dict(variables.get("batch_stats", {})))
    advice = "Pass what your model takes for training, train=True for example."
    new, report = recalibrated_stats(partial(run, variables), batches, stats_of, epsilons, advice)
    for path, stats in new.items():
        flat |= zip(places(path), stats)
    return {**variables, "batch_stats": unflatten_dict(flat)}, report
