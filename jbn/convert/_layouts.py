"""Layers of any framework in Flax's names and layouts, and back.

A `Layer` is the arrays of one layer by Flax's names: `kernel` and `bias` of a Dense or Conv,
`scale`, `bias`, `mean` and `var` of a norm, `embedding`. Its layouts are Flax's too.
"""

import math
import re
from collections.abc import Mapping
from typing import Any, TypeAlias

import numpy as np

from jbn.convert._norms import squeeze_vector
from jbn.convert._state import State, read_array

Layer: TypeAlias = dict[str, np.ndarray]
Flatten: TypeAlias = Mapping[str, tuple[int, ...] | None]


def read_layers(
    state: State, flatten: Flatten, *, shapes_only: bool = False
) -> dict[str, list[Layer]]:
    """Returns by path what each layer may be: PyTorch calls most arrays `weight`.

    Integers of other names (counters, keys of random numbers, positions) are no part of a layer.
    With `shapes_only` zeros stand for the numbers, which are not read.
    """
    known = {*state.format.norm.values(), *state.format.kernel.values()}
    known |= {*state.format.embedding.values()}
    layers, unknown = {}, []
    for path, arrays in state.layers.items():
        arrays = {
            name: value
            for name, value in arrays.items()
            if name in known or (name not in state.format.spare and _is_inexact(value))
        }
        if arrays:
            layers[path] = _read_layer(state, path, arrays, flatten, shapes_only)
        if arrays and not layers[path]:
            unknown += [state.format.join(path, name) for name in arrays]
    if unknown:
        raise ValueError(
            f"{state.format.framework} state: {unknown} are of no Dense, Conv, norm or embedding. "
            f"Leave the layers or the arrays alone with ignore=[...], and bring them yourself."
        )
    return layers


def _is_inexact(value: Any) -> bool:
    return re.search("float|complex", str(getattr(value, "dtype", ""))) is not None


def _read_layer(
    state: State, path: str, arrays: Mapping[str, Any], flatten: Flatten, shapes_only: bool
) -> list[Layer]:
    def read(name: str) -> np.ndarray:
        if shapes_only:
            return np.broadcast_to(np.float32(0), tuple(arrays[name].shape))
        return read_array(state.format.join(path, name), arrays[name])

    result = []
    for table in (state.format.kernel, state.format.norm, state.format.embedding):
        roles = {name: role for role, name in table.items()}
        if arrays.keys() <= roles.keys():
            layer = {roles[name]: read(name) for name in arrays}
            if _has_axes(layer, state.format.outputs_first):
                result.append(_to_flax(state, path, layer, flatten))
    return result


def _has_axes(layer: Layer, vectors_only: bool) -> bool:
    """Tells whether the arrays have as many axes as their names need."""
    if "kernel" in layer:
        return layer["kernel"].ndim >= 2
    if "embedding" in layer:
        return layer["embedding"].ndim == 2
    return not vectors_only or all(vector.ndim == 1 for vector in layer.values())


def _to_flax(state: State, path: str, layer: Layer, flatten: Flatten) -> Layer:
    format, layer = state.format, dict(layer)
    for role, array in layer.items():
        if role == "kernel" and format.outputs_first:
            layer[role] = np.moveaxis(array, (0, 1), (-1, -2))
        elif role == "kernel" and format.depthwise and "depthwise" in state.kind(path):
            layer[role] = array.reshape(*array.shape[:-2], 1, -1)
        elif role not in ("kernel", "embedding") and format.squeeze:
            layer[role] = squeeze_vector(array)
    return _reorder(layer, _channels_last(state, path, flatten))


def write_layer(state: State, path: str, layer: Layer, flatten: Flatten) -> dict[str, np.ndarray]:
    """Returns the arrays of a layer, whose shapes are right, in the names and layout of `state`."""
    format, old = state.format, state.layers[path]
    order = _channels_last(state, path, flatten)
    layer = _reorder(layer, None if order is None else np.argsort(order))
    if "kernel" in layer and format.outputs_first:
        layer = layer | {"kernel": np.moveaxis(layer["kernel"], (-1, -2), (0, 1))}
    new = {
        table[role]: array
        for table in (format.kernel, format.norm, format.embedding)
        for role, array in layer.items()
        if table.get(role) in old
    }
    return {name: array.reshape(tuple(old[name].shape)) for name, array in new.items()}


def _channels_last(state: State, path: str, flatten: Flatten) -> np.ndarray | None:
    """Returns the positions, channels first, of features in the order of channels last."""
    shape = flatten.get(path) if state.format.outputs_first else None
    if shape is None:
        return None
    return np.moveaxis(np.arange(math.prod(shape)).reshape(shape), 0, -1).ravel()


def _reorder(layer: Layer, order: np.ndarray | None) -> Layer:
    """Returns a layer that reads its input features in another order."""
    if order is None or "embedding" in layer:
        return layer
    reads = {"kernel"} & layer.keys() or layer.keys()
    if wrong := {role: layer[role].shape for role in reads if len(layer[role]) != len(order)}:
        raise ValueError(f"flatten gives a layer {len(order)} input features, and it has {wrong}.")
    return layer | {role: layer[role][order] for role in reads}


def check_flattened(layers: Mapping[str, Layer], flatten: Flatten) -> None:
    """Refuses a Linear of PyTorch that seems to read a flattened feature map.

    It reads a number of features that no layer gives out, and that is a multiple of what some Conv
    gives out. `flatten` has the paths where the caller knows.
    """
    if unknown := flatten.keys() - layers.keys():
        raise ValueError(f"flatten has {sorted(unknown)}, and the layers are {list(layers)}.")
    kernels = {path: layer["kernel"].shape for path, layer in layers.items() if "kernel" in layer}
    widths = {shape[-1] for shape in kernels.values()}
    channels = {shape[-1] for shape in kernels.values() if len(shape) > 2} - {1}
    for path, (features, *_) in kernels.items():
        if path in flatten or len(kernels[path]) > 2 or features in widths:
            continue
        if fitting := [number for number in channels if features % number == 0]:
            raise ValueError(
                f"PyTorch layer {path!r} reads {features} features, which no layer gives out: a "
                f"feature map of {max(fitting)} channels, flattened? PyTorch flattens channels "
                f"first, Flax channels last. Say flatten={{{path!r}: (channels, height, width)}}, "
                "for a norm between them too; or None in the place of the shape if nothing was "
                "flattened."
            )
