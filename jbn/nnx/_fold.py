"""Folding an NNX model: batch norms merged into the Linear or Conv before them."""

from functools import cache
from typing import Any

import jax.numpy as jnp
from flax import nnx

from jbn._flax.fold_pairs import (
    FoldReport,
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
from jbn._types import Affine, RunningStats

_LINEAR = (nnx.Linear, nnx.Conv, nnx.ConvTranspose)


def fold(
    model: nnx.Module, *args: Any, tolerance: float | None = None, **kwargs: Any
) -> tuple[nnx.Module, FoldReport]:
    """A copy of `model`, in inference mode, whose norms' scales live in the kernels before them.

    Runs the copy as `copy(*args, **kwargs)` to see which norm reads which `nnx.Linear`,
    `nnx.Conv` or `nnx.ConvTranspose`. A folded norm becomes the identity (scale 1, bias 0, mean 0,
    variance 1 - epsilon); where the linear layer has no bias, its mean is minus the new one. Norms
    of `jbn.nnx` and `flax.nnx` alike.

    Args:
      model: left as it is.
      tolerance: how far the output may move, beside its largest value; by default 1e-4, or four
        units of rounding of its type.
      *args, **kwargs: an example input.

    Returns:
      The folded copy, and a report of what was folded, what was kept and why, and how much the
      output changed.

    Raises:
      ValueError: naming each norm that was never trained, or if the output is not the same.

    >>> import jax, jbn.nnx
    >>> rngs = nnx.Rngs(0)
    >>> model = nnx.Sequential(nnx.Linear(2, 3, rngs=rngs), jbn.nnx.BatchNorm(3, rngs=rngs))
    >>> y = model(jax.random.normal(jax.random.key(0), (8, 2)))  # moves the statistics
    >>> folded, report = fold(model, jnp.ones((8, 2)))
    >>> print(report.folded, report.difference < 1e-5)
    {'layers/1': 'layers/0'} True
    """
    copy, listener = nnx.clone(model), nnx.clone(model)
    copy.eval()
    listener.eval()
    layers: dict[str, Any] = {_path(path): node for path, node in nnx.iter_graph(copy)}
    for path, node in nnx.iter_graph(listener):
        if isinstance(node, nnx.BatchNorm) or is_linear(node, _LINEAR):
            layer: Any = node
            layer.fold_path = _path(path)
            layer.__class__ = _listening(type(layer))
    graphdef, state = nnx.split(listener)
    found, kept = pairs(lambda state: nnx.merge(graphdef, state)(*args, **kwargs), state)

    def stats_of(norm):
        return RunningStats(norm.mean[...], norm.var[...])

    check_trained({path: stats_of(layers[path]) for path in found | kept})
    folded, before = {}, copy(*args, **kwargs)
    for path, name in found.items():
        norm, linear = layers[path], layers[name]
        stats, kernel = stats_of(norm), linear.kernel[...]
        if reason := obstacle(kernel, stats, norm.epsilon):
            kept[path] = reason
            continue
        affine = Affine(
            jnp.ones_like(stats.var) if norm.scale is None else norm.scale[...],
            jnp.zeros_like(stats.var) if norm.bias is None else norm.bias[...],
        )
        bias = None if linear.bias is None else linear.bias[...]
        new = fold_pair(kernel, bias, affine, stats, norm.epsilon)
        if reason := overflow(*new[:2]):
            kept[path] = reason
            continue
        linear.kernel[...], new_bias, (norm.mean[...], norm.var[...]) = new
        if linear.bias is not None:
            linear.bias[...] = new_bias
        if norm.scale is not None:
            norm.scale[...] = jnp.ones_like(norm.scale[...])
        if norm.bias is not None:
            norm.bias[...] = jnp.zeros_like(norm.bias[...])
        folded[path] = name
    difference = relative_difference(before, copy(*args, **kwargs), tolerance)
    return copy, FoldReport(folded, kept, difference)


def _path(parts: tuple) -> str:
    return "/".join(map(str, parts))


@cache
def _listening(kind: type) -> type:
    """`kind` that also names what it reads, or what it returns."""

    def norm_call(self, x, *args, **kwargs):
        named = name_input(self.fold_path, x, self.axis)
        return kind.__call__(self, named, *args, **kwargs)  # type: ignore

    def linear_call(self, *args, **kwargs):
        return name_output(self.fold_path, kind.__call__(self, *args, **kwargs))  # type: ignore

    call = norm_call if issubclass(kind, nnx.BatchNorm) else linear_call
    return type(kind.__name__, (kind,), {"__call__": call})
