"""Interception of the calls of an NNX model's layers."""

from collections.abc import Callable
from functools import cache, partial, wraps
from typing import Any

from flax import nnx


def intercepted(
    model: nnx.Module, is_layer: Callable[[Any], bool], around: Callable[..., Any]
) -> nnx.Module:
    """Returns a copy of `model` where `around(path, layer, call, args, kwargs)` replaces calls.

    Those of the modules that `is_layer` names. The copy has variables of its own.
    """
    copy = nnx.clone(model)
    for path, layer in layers(copy, is_layer).items():
        layer.around = partial(around, path)
        layer.__class__ = _intercepted(type(layer))
    return copy


def layers(model: nnx.Module, is_layer: Callable[[Any], bool]) -> dict[str, Any]:
    """Returns the modules of `model` that `is_layer` names, by path."""
    return {
        "/".join(map(str, path)): node
        for path, node in nnx.iter_graph(model)
        if isinstance(node, nnx.Module) and is_layer(node)
    }


@cache  # JAX keeps every class of modules for ever
def _intercepted(kind: type) -> type:
    call: Any = kind.__call__

    @wraps(call)
    def __call__(self, *args, **kwargs):
        return self.around(self, partial(call, self), args, kwargs)

    return type(kind.__name__, (kind,), {"__call__": __call__})
