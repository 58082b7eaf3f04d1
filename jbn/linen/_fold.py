"""Folding of a Linen model: batch norms merged into the Dense or Conv beside them."""

from collections.abc import Mapping
from typing import Any

import flax.linen as nn
import jax
from flax.traverse_util import flatten_dict, unflatten_dict

from jbn._flax.fold_model import FoldReport, fold_model
from jbn._flax.fold_pairs import Trace
from jbn._flax.linear_layers import conv, conv_transpose, dense, dense_general
from jbn._types import RunningStats
from jbn.linen._intercept import intercepted, path_names

_LINEAR = {
    nn.Dense: dense,
    nn.DenseGeneral: dense_general,
    nn.Conv: conv,
    nn.ConvTranspose: conv_transpose,
}
_UNSUPPORTED = (nn.ConvLocal, nn.Einsum)


def fold(
    model: nn.Module,
    variables: Mapping[str, Any],
    *args: Any,
    tolerance: float | None = None,
    **kwargs: Any,
) -> tuple[dict[str, Any], FoldReport]:
    """Merges the norms of a trained model into the linear layers beside them.

    Runs `model.apply(variables, *args, **kwargs)`, which must be inference, to see which norm
    reads which `nn.Dense`, `nn.DenseGeneral`, `nn.Conv` or `nn.ConvTranspose`, or is read by which
    alone. A folded norm becomes the identity (scale 1, bias 0, mean 0, variance 1 - epsilon); where
    the layer before it has no bias, its mean is minus the new one. So the model still runs
    unchanged, and `drop_norms` makes it faster. Norms of `jbn.linen` and `flax.linen` alike.

    Args:
      model, variables: left as they are.
      tolerance: how far the output may move, beside its largest value; by default 1e-4, or four
        units of rounding of the coarsest type in play. A norm that would move it further is kept.
      *args, **kwargs: an example input, and what makes the call inference: `train=False`. The
        model runs on it once for each norm.

    Returns:
      New variables, and a report of what was folded, what was kept and why, and how much the
      output changed.

    Raises:
      ValueError: naming each norm that was never trained, or one that normalises with the batch.

    >>> import jbn.linen
    >>> model = nn.Sequential([nn.Dense(3), jbn.linen.BatchNorm(use_running_average=True)])
    >>> x = jax.random.normal(jax.random.key(0), (8, 2))
    >>> variables = model.init(jax.random.key(1), x)
    >>> variables["batch_stats"]["layers_1"]["mean"] += 5.0
    >>> folded, report = fold(model, variables, x)
    >>> print(report.folded, report.difference < 1e-5)
    {'layers_1': ('layers_0',)} True
    """
    flat: dict[tuple[str, ...], Any] = dict(flatten_dict(variables))

    def apply(variables):
        return model.apply(variables, *args, **kwargs)

    def keys_of(path):
        parts = path_names(path)
        names = [("params", name) for name in ("kernel", "bias", "scale")]
        names += [("batch_stats", name) for name in RunningStats._fields]
        keys = {name: (collection, *parts, name) for collection, name in names}
        return {name: key for name, key in keys.items() if key in flat}

    def with_arrays(arrays):
        new = {
            key: nn.meta.replace_boxed(flat[key], arrays[path][name])
            for path in arrays
            for name, key in keys_of(path).items()
        }
        return unflatten_dict(flat | new)

    trace = Trace(nn.BatchNorm, _LINEAR, _UNSUPPORTED)
    with intercepted(trace.around):
        jaxpr = jax.make_jaxpr(apply)(variables).jaxpr
    arrays = {
        path: {name: nn.meta.unbox(flat[key]) for name, key in keys_of(path).items()}
        for path in trace.layers
    }
    new, report = fold_model(trace, jaxpr, arrays, lambda a: apply(with_arrays(a)), tolerance)
    return with_arrays(new), report
