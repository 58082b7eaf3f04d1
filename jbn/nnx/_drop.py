"""NNX models without their folded norms."""

from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from flax.nnx.nn import dtypes

from jbn._flax.calls import is_frozen
from jbn._flax.dropped_norms import check_call, check_identity, subtract
from jbn._flax.fold_model import FoldReport
from jbn._numerics.arrays import common_type
from jbn.nnx._batch_norm import BatchNorm


class _Subtract(nnx.Module):
    """Stands where a folded norm stood."""

    def __init__(self, path: str, norm: Any):
        self.path, self.use_running_average = path, True
        self.mean = norm.mean if jnp.any(norm.mean[...]) else nnx.data(None)
        self.dtype, self.param_dtype = norm.dtype, norm.param_dtype
        self.learns = norm.use_scale or norm.use_bias

    def __call__(self, x: jax.Array, use_running_average: bool | None = None, **_: Any):
        check_call(self.path, is_frozen(self, {"use_running_average": use_running_average}))
        inferred = common_type(x.dtype, jnp.float32)
        inferred = common_type(inferred, self.param_dtype) if self.learns else inferred
        return subtract(x, None if self.mean is None else self.mean[...], self.dtype or inferred)


def drop_norms(model: nnx.Module, report: FoldReport) -> nnx.Module:
    """Takes the norms that `fold` made the identity out of a copy of a model, for faster inference.

    A norm whose Linear or Conv has no bias still subtracts its mean, which costs what the bias
    would.

    Args:
      model, report: as `fold` returned them; the model is left as it is.

    Raises:
      ValueError: if `model` is not folded, or, when the copy is called, in training.
      TypeError: for a folded norm of a subclass with a call of its own.

    >>> import jbn.nnx
    >>> rngs = nnx.Rngs(0)
    >>> model = nnx.Sequential(nnx.Linear(2, 3, rngs=rngs), jbn.nnx.BatchNorm(3, rngs=rngs))
    >>> x = jax.random.normal(jax.random.key(0), (8, 2))
    >>> y = model(x)  # moves the statistics
    >>> model.eval()
    >>> faster = drop_norms(*jbn.nnx.fold(model, x))
    >>> print(jnp.allclose(faster(x), model(x), atol=1e-5), nnx.state(faster.layers[1]))
    True State({})
    """
    dropped = set()

    def replace(parts: tuple, node: Any) -> Any:
        path = "/".join(map(str, parts))
        if path not in report.folded:
            return node
        if type(node) not in (nnx.BatchNorm, BatchNorm) or (
            node.promote_dtype is not dtypes.promote_dtype
        ):
            raise TypeError(f"{path} is a {type(node).__name__} of its own: not dropped.")
        vectors = [None if v is None else v[...] for v in (node.scale, node.bias)]
        check_identity(path, node.var[...], node.epsilon, *vectors)
        dropped.add(path)
        return _Subtract(path, node)

    faster = nnx.recursive_map(replace, nnx.clone(model))
    if missing := sorted(report.folded.keys() - dropped):
        raise ValueError(f"the model has no {', '.join(missing)}: give what fold returned.")
    return faster
