"""Folding a Linen model: batch norms merged into the Dense or Conv before them."""

from collections.abc import Mapping
from typing import Any

import flax.linen as nn
import jax.numpy as jnp
from flax.traverse_util import flatten_dict, unflatten_dict

from jbn._flax.fold_pairs import (
    FoldReport,
    check_inference,
    check_trained,
    fold_pair,
    is_linear,
    name_input,
    name_output,
    obstacle,
    overflow,
    pairs,
    relative_difference,
)
from jbn._flax.moments import call_arguments
from jbn._types import Affine, RunningStats
from jbn.linen._recalibrate import outermost_calls

_LINEAR = (nn.Dense, nn.Conv, nn.ConvTranspose)


def fold(
    model: nn.Module,
    variables: Mapping[str, Any],
    *args: Any,
    tolerance: float | None = None,
    **kwargs: Any,
) -> tuple[dict[str, Any], FoldReport]:
    """Variables of the same model in which the norms' scales live in the kernels before them.

    Runs `model.apply(variables, *args, **kwargs)`, which must be inference, to see which norm
    reads which `nn.Dense`, `nn.Conv` or `nn.ConvTranspose`. A folded norm becomes the identity
    (scale 1, bias 0, mean 0, variance 1 - epsilon); where the linear layer has no bias, its mean is
    minus the new one. So the model still runs unchanged, and one written without these norms, with
    biases, gives the same from the same `params`. Norms of `jbn.linen` and `flax.linen` alike.

    Args:
      model, variables: left as they are.
      tolerance: how far the output may move, beside its largest value; by default 1e-4, or four
        units of rounding of its type.
      *args, **kwargs: an example input, and what makes the call inference: `train=False`.

    Returns:
      New variables, and a report of what was folded, what was kept and why, and how much the
      output changed.

    Raises:
      ValueError: naming each norm that was never trained, one that normalises with the batch, or if
        the output is not the same.

    >>> import jax, jbn.linen
    >>> model = nn.Sequential([nn.Dense(3), jbn.linen.BatchNorm(use_running_average=True)])
    >>> x = jax.random.normal(jax.random.key(0), (8, 2))
    >>> variables = model.init(jax.random.key(1), x)
    >>> variables["batch_stats"]["layers_1"]["mean"] += 5.0
    >>> folded, report = fold(model, variables, x)
    >>> print(report.folded, report.difference < 1e-5)
    {'layers_1': 'layers_0'} True
    """
    epsilons: dict[str, float] = {}

    def listen(next_fun, args, kwargs, context):
        layer, path = context.module, "/".join(context.module.path)
        if isinstance(layer, nn.BatchNorm):
            check_inference(path, layer, call_arguments(layer, args, kwargs))
            x, *rest = args if args else (kwargs.pop("x"),)
            epsilons[path] = layer.epsilon
            return next_fun(name_input(path, x, layer.axis), *rest, **kwargs)
        y = next_fun(*args, **kwargs)
        return name_output(path, y) if is_linear(layer, _LINEAR) else y

    def run(variables):
        return model.apply(variables, *args, **kwargs)

    with nn.intercept_methods(outermost_calls(listen)):
        found, kept = pairs(run, variables)
    flat: dict[tuple[str, ...], Any] = dict(flatten_dict(variables))
    folded = {}

    def key(collection, path, name):
        return (collection, *(path.split("/") if path else ()), name)

    def stats_of(path):
        return RunningStats(*(flat[key("batch_stats", path, v)] for v in ("mean", "var")))

    check_trained({path: stats_of(path) for path in epsilons})
    for path, linear in found.items():
        stats, kernel = stats_of(path), key("params", linear, "kernel")
        if reason := obstacle(flat[kernel], stats, epsilons[path]):
            kept[path] = reason
            continue
        identity = Affine(jnp.ones_like(stats.var), jnp.zeros_like(stats.var))
        places = [key("params", path, name) for name in Affine._fields]
        affine = Affine(*(flat.get(place, one) for place, one in zip(places, identity)))
        bias = key("params", linear, "bias")
        new = fold_pair(flat[kernel], flat.get(bias), affine, stats, epsilons[path])
        if reason := overflow(*new[:2]):
            kept[path] = reason
            continue
        flat[kernel], new_bias, (mean, var) = new
        flat |= {} if new_bias is None else {bias: new_bias}
        flat |= {key("batch_stats", path, "mean"): mean, key("batch_stats", path, "var"): var}
        flat |= {
            place: one.astype(flat[place].dtype)
            for place, one in zip(places, identity)
            if place in flat
        }
        folded[path] = linear
    result: dict[str, Any] = unflatten_dict(flat)
    difference = relative_difference(run(variables), run(result), tolerance)
    return result, FoldReport(folded, kept, difference)
