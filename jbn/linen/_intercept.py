"""Interception of the calls of a Linen model's layers."""

from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any

import flax.linen as nn


def path_names(path: str) -> tuple[str, ...]:
    """Returns the names in a path as `intercepted` gives it; the model's own has none."""
    return tuple(path.split("/")) if path else ()


def intercepted(around: Callable[..., Any]) -> AbstractContextManager[None]:
    """Returns a context where `around(path, layer, call, args, kwargs)` replaces each `__call__`.

    A layer whose `__call__` runs that of a base class counts once.
    """
    running: set[Any] = set()

    def intercept(next_fun, args, kwargs, context):
        layer = context.module
        key = layer.path, layer.scope
        if context.method_name != "__call__" or key in running:
            return next_fun(*args, **kwargs)
        running.add(key)
        try:
            return around("/".join(layer.path), layer, next_fun, args, kwargs)
        finally:
            running.discard(key)

    return nn.intercept_methods(intercept)
