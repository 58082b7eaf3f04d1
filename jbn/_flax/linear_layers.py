"""Linear layers of Flax: where their kernels hold inputs and outputs, and what they pad with."""

import inspect
import math
from collections.abc import Sequence
from types import FunctionType
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

_UNPADDED = ("VALID", "CIRCULAR", "REFLECT")


class Linear(NamedTuple):
    """The layout of a linear layer's kernel, and the input that it reads."""

    inputs: tuple[int, ...] = (-2,)
    """The axes of the kernel that hold the input features."""
    outputs: tuple[int, ...] = (-1,)
    """The axes of the kernel that hold the output features."""
    reads_last_axes: bool = True
    """Whether the input features are the last axes of the layer's input."""
    pads: bool = False
    """Whether zeros that are not in the layer's input take part in its sums."""
    refused: str = ""
    """Why nothing can be merged into the layer, if so."""

    def flatten(self, kernel: jax.Array) -> jax.Array:
        """Returns `kernel` as (*window, inputs, outputs)."""
        moved = jnp.moveaxis(kernel, *self._moves())
        window = kernel.ndim - len(self.inputs) - len(self.outputs)
        sizes = (math.prod(kernel.shape[a] for a in axes) for axes in (self.inputs, self.outputs))
        return moved.reshape(*moved.shape[:window], *sizes)

    def restore(self, flat: jax.Array, like: jax.Array) -> jax.Array:
        """Returns the inverse of `flatten`, in the shape of `like`."""
        source, moved = self._moves()
        shape = jnp.moveaxis(like, source, moved).shape
        return jnp.moveaxis(flat.reshape(shape), moved, source)

    def _moves(self) -> tuple[tuple[int, ...], tuple[int, ...]]:
        source = self.inputs + self.outputs
        return source, tuple(range(-len(source), 0))


def dense(layer: Any, ndim: int) -> Linear:
    return Linear()


def conv(layer: Any, ndim: int) -> Linear:
    return Linear(pads=_pads(layer))


def conv_transpose(layer: Any, ndim: int) -> Linear:
    # At its borders an output sums fewer products than elsewhere.
    axes = ((-1,), (-2,)) if layer.transpose_kernel else ((-2,), (-1,))
    return Linear(*axes, pads=True)


def dense_general(layer: Any, ndim: int) -> Linear:
    """Describes `DenseGeneral` of Linen or `LinearGeneral` of NNX."""
    if getattr(layer, "batch_dims", ()) or getattr(layer, "batch_axis", ()):
        return Linear(refused="has batch axes")
    features = layer.features if hasattr(layer, "features") else layer.out_features
    axis = tuple(a % ndim for a in _as_tuple(layer.axis))
    outputs = len(_as_tuple(features))
    return Linear(
        inputs=tuple(range(len(axis))),
        outputs=tuple(range(-outputs, 0)),
        reads_last_axes=axis == tuple(range(ndim - len(axis), ndim)),
    )


def overridden(kind: type, base: type) -> list[str]:
    """Returns the methods and properties of the class `base` that its subclass `kind` replaces.

    Options with other defaults change nothing of what is done with the kernel.
    """
    options = getattr(base, "__dataclass_fields__", ())
    return [
        name
        for name in dir(base)
        if (name == "__call__" or not name.startswith("__"))
        and name not in options
        and isinstance(getattr(base, name), FunctionType | property)
        and inspect.unwrap(getattr(kind, name)) is not inspect.unwrap(getattr(base, name))
    ]


def _pads(layer: Any) -> bool:
    if any(dilation not in (None, 1) for dilation in _as_tuple(layer.input_dilation)):
        return True
    if isinstance(layer.padding, str):
        wide = any(size > 1 for size in _as_tuple(layer.kernel_size))
        return wide and layer.padding.upper() not in _UNPADDED
    return any(jax.tree.leaves(layer.padding))


def _as_tuple(value: Any) -> tuple:
    return tuple(value) if isinstance(value, Sequence) else (value,)
