"""Linen models without their folded norms."""

from collections.abc import Callable, Mapping
from functools import wraps
from typing import Any

import flax.linen as nn
import jax.numpy as jnp
from flax.traverse_util import flatten_dict, unflatten_dict

from jbn._flax.calls import call_arguments, is_frozen
from jbn._flax.dropped_norms import check_call, check_identity, subtract
from jbn._flax.fold_model import FoldReport
from jbn._numerics.arrays import common_type
from jbn._types import Affine
from jbn.linen._batch_norm import BatchNorm
from jbn.linen._intercept import intercepted, path_names


def drop_norms(
    function: Callable[..., Any], variables: Mapping[str, Any], report: FoldReport
) -> tuple[Callable[..., Any], dict[str, Any]]:
    """Takes the norms that `fold` made the identity out of a model, for faster inference.

    A norm whose Dense or Conv has no bias still subtracts its mean, which costs what the bias
    would. The norms are left out while the result is traced, so `jax.jit` goes around it.

    Args:
      function: applies the model: `model.apply`.
      variables, report: as `fold` returned them.

    Returns:
      The function, and the variables to call it with: those without what the norms held.

    Raises:
      ValueError: if `variables` are not folded; when called, for variables that hold the norms, or
        in training.
      TypeError: when called, for a folded norm of a subclass with a call of its own.

    >>> import jax, jbn.linen
    >>> model = nn.Sequential([nn.Dense(3), jbn.linen.BatchNorm(use_running_average=True)])
    >>> x = jax.random.normal(jax.random.key(0), (8, 2))
    >>> variables = model.init(jax.random.key(1), x)
    >>> variables["batch_stats"]["layers_1"]["mean"] += 5.0
    >>> apply, smaller = drop_norms(model.apply, *jbn.linen.fold(model, variables, x))
    >>> print(list(smaller["params"]), "batch_stats" in smaller)
    ['layers_0'] False
    >>> bool(jnp.allclose(jax.jit(apply)(smaller, x), model.apply(variables, x), atol=1e-5))
    True
    """
    flat: dict[tuple[str, ...], Any] = dict(flatten_dict(variables))
    epsilons: dict[str, float] = {}
    for path in report.folded:
        parts = path_names(path)
        stats, params = ("batch_stats", *parts), ("params", *parts)
        mean, var = flat[*stats, "mean"], flat.pop((*stats, "var"))
        affine = [nn.meta.unbox(flat.pop((*params, name), None)) for name in Affine._fields]
        epsilons[path] = 1 - float(var.ravel()[0])
        check_identity(path, var, epsilons[path], *affine)
        if not jnp.any(mean):
            del flat[*stats, "mean"]

    def skip(path, layer, call, args, kwargs):
        if path not in report.folded:
            return call(*args, **kwargs)
        if type(layer) not in (nn.BatchNorm, BatchNorm):  # its own __call__ would be lost
            raise TypeError(f"{type(layer).__name__} is a batch norm of its own: not dropped.")
        given = call_arguments(layer, args, kwargs)
        check_call(path, is_frozen(layer, given))
        if abs(layer.epsilon - epsilons[path]) > 1e-6:
            raise ValueError(f"{path} still normalises in these variables: fold them first.")
        if layer.has_variable("batch_stats", "var"):
            raise ValueError(f"the variables hold {path}. Pass those that drop_norms returned.")
        x, mean = given["x"], layer.get_variable("batch_stats", "mean")
        learned = layer.use_scale or layer.use_bias
        inferred = common_type(x.dtype, layer.param_dtype) if learned else x.dtype
        return subtract(x, mean, layer.dtype or inferred)

    @wraps(function)
    def run(*args, **kwargs):
        with intercepted(skip):
            return function(*args, **kwargs)

    return run, unflatten_dict(flat)
