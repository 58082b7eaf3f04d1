"""Replacement of the batch norms of a Linen model while it is applied."""

import dataclasses
from collections.abc import Callable
from functools import wraps
from typing import Any

import flax.linen as nn

from jbn.linen._batch_norm import BatchNorm
from jbn.linen._intercept import intercepted


def replace_norms(function: Callable[..., Any], **options: Any) -> Callable[..., Any]:
    """Runs every batch norm of the models that `function` applies as one of this class.

    For models that one does not want to edit: a variant, a schedule of the momentum or an axis name
    for all norms of `function`, `model.apply` for example. Names and variables stay. The norms are
    replaced while `function` is traced, so `jax.jit` goes around the result, not into it.

    Args:
      function: applies or initialises models with norms of `flax.linen` or `jbn.linen`.
      **options: attributes of `BatchNorm` to replace; all others stay as each norm has them.

    Raises:
      TypeError: for an attribute that `BatchNorm` does not have, or, when called, for a subclass of
        either layer.

    >>> import jax, jbn
    >>> model = nn.Sequential([nn.Dense(3), nn.BatchNorm(use_running_average=False)])
    >>> apply = replace_norms(model.apply, variant=jbn.Ghost(4), momentum=0.0)
    >>> x = jax.random.normal(jax.random.key(0), (8, 2))
    >>> y, updates = apply(model.init(jax.random.key(1), x), x, mutable=["batch_stats"])
    >>> print(abs(y[:4].mean()) < 1e-6)
    True
    """
    fields = {field.name for field in dataclasses.fields(BatchNorm)} - {"parent", "name"}
    if unknown := sorted(options.keys() - fields):
        raise TypeError(
            f"BatchNorm has no {', '.join(unknown)}. It has {', '.join(sorted(fields))}."
        )

    def replace(path, layer, call, args, kwargs):
        if not isinstance(layer, nn.BatchNorm):
            return call(*args, **kwargs)
        if type(layer) not in (nn.BatchNorm, BatchNorm):  # its own __call__ would be lost
            raise TypeError(f"{type(layer).__name__} is a batch norm of its own: not replaced.")
        kept = {name: getattr(layer, name) for name in fields if hasattr(layer, name)}
        scope: Any = layer.scope  # the same variables
        return BatchNorm(**(kept | options), parent=scope)(*args, **kwargs)

    @wraps(function)
    def run(*args, **kwargs):
        with intercepted(replace):
            return function(*args, **kwargs)

    return run
