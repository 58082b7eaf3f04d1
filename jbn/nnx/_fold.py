"""Folding of an NNX model: batch norms merged into the Linear or Conv beside them."""

from typing import Any

import jax
from flax import nnx

from jbn._flax.fold_model import FoldReport, fold_model
from jbn._flax.fold_pairs import Trace
from jbn._flax.linear_layers import conv, conv_transpose, dense, dense_general
from jbn.nnx._intercept import intercepted, layers

_LINEAR = {
    nnx.Linear: dense,
    nnx.LinearGeneral: dense_general,
    nnx.Conv: conv,
    nnx.ConvTranspose: conv_transpose,
}
_UNSUPPORTED = (nnx.Einsum,)
_NAMES = ("kernel", "bias", "scale", "mean", "var")


def fold(
    model: nnx.Module, *args: Any, tolerance: float | None = None, **kwargs: Any
) -> tuple[nnx.Module, FoldReport]:
    """Merges the norms of a trained model into the linear layers beside them, in a copy.

    Runs the copy, in inference mode, as `copy(*args, **kwargs)`, to see which norm reads which
    `nnx.Linear`, `nnx.LinearGeneral`, `nnx.Conv` or `nnx.ConvTranspose`, or is read by which alone.
    A folded norm becomes the identity (scale 1, bias 0, mean 0, variance 1 - epsilon); where the
    layer before it has no bias, its mean is minus the new one. `drop_norms` then makes the copy
    faster. Norms of `jbn.nnx` and `flax.nnx` alike.

    Args:
      model: left as it is.
      tolerance: how far the output may move, beside its largest value; by default 1e-4, or four
        units of rounding of the coarsest type in play. A norm that would move it further is kept.
      *args, **kwargs: an example input. The model runs on it once for each norm.

    Returns:
      The folded copy, and a report of what was folded, what was kept and why, and how much the
      output changed.

    Raises:
      ValueError: naming each norm that was never trained.

    >>> import jax.numpy as jnp, jbn.nnx
    >>> rngs = nnx.Rngs(0)
    >>> model = nnx.Sequential(nnx.Linear(2, 3, rngs=rngs), jbn.nnx.BatchNorm(3, rngs=rngs))
    >>> y = model(jax.random.normal(jax.random.key(0), (8, 2)))  # moves the statistics
    >>> folded, report = fold(model, jnp.ones((8, 2)))
    >>> print(report.folded, report.difference < 1e-5)
    {'layers/1': ('layers/0',)} True
    """
    copy = nnx.clone(model)
    copy.eval()

    def variables(layer):
        present = (name for name in _NAMES if getattr(layer, name, None) is not None)
        return {name: getattr(layer, name) for name in present}

    def with_arrays(arrays):
        new = nnx.clone(copy)
        for path, layer in layers(new, trace.knows).items():
            for name, variable in variables(layer).items():
                if path in arrays:
                    variable[...] = arrays[path][name]
        return new

    trace = Trace(nnx.BatchNorm, _LINEAR, _UNSUPPORTED)
    graphdef, state = nnx.split(intercepted(copy, trace.knows, trace.around))
    jaxpr = jax.make_jaxpr(lambda state: nnx.merge(graphdef, state)(*args, **kwargs))(state).jaxpr
    arrays = {
        path: {name: variable[...] for name, variable in variables(layer).items()}
        for path, layer in layers(copy, trace.knows).items()
        if path in trace.layers
    }
    new, report = fold_model(
        trace, jaxpr, arrays, lambda a: with_arrays(a)(*args, **kwargs), tolerance
    )
    return with_arrays(new), report
