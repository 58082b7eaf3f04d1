"""Layers in a dictionary of arrays, found and written by their names: every framework alike."""

from collections import Counter
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jbn._numerics.arrays import as_array, statistics_dtype
from jbn._types import Affine, RunningStats

Layers = dict[str, tuple[Affine, RunningStats]]

LONG_AGO = 2**30  # steps after which no average shows where it began


class Names(NamedTuple):
    """Where a framework keeps the four vectors: (collection above, name below) the layer's path."""

    framework: str
    separator: str
    scale: tuple[str, str]
    bias: tuple[str, str]
    mean: tuple[str, str]
    var: tuple[str, str]
    others: tuple[tuple[str, str], ...] = ()  # known, and not needed
    squeeze: bool = False  # whether the vectors have axes of length one before their own

    @property
    def vectors(self) -> tuple[tuple[str, str], ...]:
        return self.scale, self.bias, self.mean, self.var

    def key(self, layer: str, place: tuple[str, str]) -> str:
        return self.separator.join(part for part in (place[0], layer, place[1]) if part)

    def layer(self, key: str, place: tuple[str, str]) -> str | None:
        """The layer whose `place` is `key`, if it is one's."""
        head, tail = place[0] and place[0] + self.separator, self.separator + place[1]
        inner = self.separator + key.removeprefix(head)
        found = key.startswith(head) and inner.endswith(tail)
        return inner[len(self.separator) : -len(tail)] if found else None


def flatten(tree: Mapping[Any, Any], separator: str, above: str = "") -> dict[str, Any]:
    flat = {}
    for name, value in tree.items():
        key = f"{above}{name}"
        nested = isinstance(value, Mapping)
        flat |= flatten(value, separator, key + separator) if nested else {key: value}
    return flat


def nest(flat: Mapping[str, Any], *, index: bool = False) -> dict[Any, Any]:
    tree: dict[Any, Any] = {}
    for key, value in flat.items():
        *above, name = key.split("/")
        node = tree
        for part in above:
            node = node.setdefault(int(part) if index and part.isdecimal() else part, {})
        node[name] = value
    return tree


def read(
    names: Names, tree: Mapping[Any, Any], prefix: str, use_scale: bool, use_bias: bool
) -> Layers:
    flat = flatten(tree, names.separator)
    found = (names.layer(key, place) for key in flat for place in (names.mean, names.var))
    inside = prefix.rstrip(names.separator)
    layers = [
        layer
        for layer in dict.fromkeys(layer for layer in found if layer is not None)
        if not inside or layer == inside or layer.startswith(inside + names.separator)
    ]
    if not layers:
        where = f" in {prefix!r}" if prefix else ""
        raise ValueError(
            f"{names.framework} state: found no batch norm{where}, which is a layer with "
            f"{names.key('', names.mean)!r} and {names.key('', names.var)!r}. "
            f"The keys begin with {list(flat)[:5]}."
        )
    _check_keys(names, flat, layers, use_scale, use_bias)

    result = {}
    for layer in layers:
        scale, bias, mean, var = (names.key(layer, place) for place in names.vectors)
        shape = np.shape(flat[mean])
        absent = {scale: np.ones(shape, np.float32), bias: np.zeros(shape, np.float32)}
        result[layer] = make_layer(
            {key: flat.get(key, absent.get(key)) for key in (scale, bias, mean, var)},
            squeeze=names.squeeze,
        )
    return result


def _check_keys(names: Names, flat, layers, use_scale: bool, use_bias: bool) -> None:
    """Every layer must have its four vectors, and nothing beside them that we do not know."""
    missing, unknown = [], []
    for layer in layers:
        four = {place: names.key(layer, place) for place in names.vectors}
        optional = {four[names.scale]: not use_scale, four[names.bias]: not use_bias}
        missing += [k for k in four.values() if k not in flat and not optional.get(k, False)]
        known = {*four.values(), *(names.key(layer, place) for place in names.others)}
        homes = {key.rpartition(names.separator)[0] for key in known}
        unknown += [k for k in flat if k not in known and k.rpartition(names.separator)[0] in homes]
    if missing or unknown:
        raise ValueError(
            f"{names.framework} state: missing keys {missing}, unknown keys {unknown}. "
            "If layers have no scale or no bias, say use_scale=False or use_bias=False."
        )


def make_layer(vectors: dict[str, Any], *, squeeze: bool = False) -> tuple[Affine, RunningStats]:
    """A layer from its four vectors, in the order scale, bias, mean, var, each by its full path."""
    checked = {path: _vector(path, value, squeeze) for path, value in vectors.items()}
    shapes = {path: array.shape for path, array in checked.items()}
    if len(set(shapes.values())) > 1:
        raise ValueError(f"the vectors of one layer must have one length, got {shapes}.")
    scale, bias, mean, var = checked.values()
    if np.any(np.asarray(var) < 0):
        raise ValueError(
            f"{list(vectors)[3]} holds a negative variance, {float(jnp.min(var)):g}: the state is "
            "damaged, or is not of a batch norm."
        )
    mean, var = (v.astype(statistics_dtype(v.dtype)) for v in (mean, var))
    return Affine(scale, bias), RunningStats(mean, var)


def _vector(path: str, value: Any, squeeze: bool) -> jax.Array:
    try:
        array = value if isinstance(value, np.ndarray) else np.asarray(value)
        floating = jnp.issubdtype(array.dtype, jnp.floating)
    except (TypeError, RuntimeError) as error:
        raise TypeError(
            f"{path}: numpy cannot read this {type(value).__name__} ({error}). Convert it first, "
            "for example with .detach().float().cpu().numpy()."
        ) from error
    if not floating:
        raise TypeError(f"{path} must hold floating-point numbers, got {array.dtype}.")
    if squeeze and array.size == max(array.shape, default=0):
        array = array.reshape(-1)
    if array.ndim != 1:
        raise ValueError(f"{path} must have one axis, the features, got shape {array.shape}.")
    if not np.all(np.isfinite(array)):
        raise ValueError(f"{path} holds numbers that are not finite.")
    return as_array(array, path)


def write(names: Names, layers: Layers, use_scale: bool, use_bias: bool) -> dict[str, np.ndarray]:
    flat = {}
    for layer, (affine, stats) in layers.items():
        check_identity(f"layer {layer!r}", affine, use_scale, use_bias)
        if use_scale:
            flat[names.key(layer, names.scale)] = affine.scale
        if use_bias:
            flat[names.key(layer, names.bias)] = affine.bias
        flat[names.key(layer, names.mean)] = stats.mean
        flat[names.key(layer, names.var)] = stats.var
    return {key: np.array(value) for key, value in flat.items()}


def put_into(names: Names, layers: Layers, target: Mapping[Any, Any]) -> dict[Any, Any]:
    """`target`, a whole model's state, with the vectors of `layers` in the place of its own."""
    flat = flatten(target, names.separator)
    homes = [layer for key in flat if (layer := names.layer(key, names.mean)) is not None]
    if strangers := [layer for layer in layers if layer not in homes]:
        raise ValueError(
            f"{names.framework} target: no batch norm is called {strangers}. It has {homes}. "
            f"Say which is which: rename={{{strangers[0]!r}: ...}}."
        )
    new: dict[str, np.ndarray] = {}
    for name, layer in layers.items():
        has = (names.key(name, names.scale) in flat, names.key(name, names.bias) in flat)
        check_identity(f"layer {name!r}, whose target has no place for it,", layer[0], *has)
        new |= write(names, {name: layer}, *has)
    shapes = {key: (value.shape, tuple(flat[key].shape)) for key, value in new.items()}
    if wrong := {key: pair for key, pair in shapes.items() if pair[0] != pair[1]}:
        raise ValueError(f"{names.framework} target: shapes (given, there) differ: {wrong}.")
    return _replace(target, names.separator, new)


def _replace(tree: Mapping[Any, Any], separator: str, new: Mapping[str, Any], above: str = ""):
    result = {}
    for name, old in tree.items():
        key = f"{above}{name}"
        if isinstance(old, Mapping):
            result[name] = _replace(old, separator, new, key + separator)
        elif key not in new:
            result[name] = old
        elif hasattr(old, "new_tensor"):  # PyTorch's, of its type and on its device
            result[name] = old.new_tensor(new[key])
        else:
            result[name] = new[key].astype(old.dtype)
    return result


def rename_layers(
    layers: Layers, rename: Mapping[str, str] | Callable[[str], str] | None
) -> Layers:
    """`layers` under other paths: by a mapping of those that change, or a function of all."""
    if rename is None:
        return layers
    if isinstance(rename, Mapping):
        if strangers := [name for name in rename if name not in layers]:
            raise ValueError(f"rename has {strangers}, and the layers are {list(layers)}.")
        pairs = {name: rename.get(name, name) for name in layers}
    else:
        pairs = {name: rename(name) for name in layers}
    if twice := [name for name, count in Counter(pairs.values()).items() if count > 1]:
        raise ValueError(f"rename gives {twice} to more than one layer.")
    return {pairs[name]: layer for name, layer in layers.items()}


def check_identity(layer: str, affine: Affine, scale: bool, bias: bool) -> None:
    """Refuses to leave out a scale that is not 1, or a bias that is not 0."""
    if not scale and np.any(np.asarray(affine.scale) != 1):
        raise ValueError(f"{layer} has a scale that is not 1: without it, it would be lost.")
    if not bias and np.any(np.asarray(affine.bias) != 0):
        raise ValueError(f"{layer} has a bias that is not 0: without it, it would be lost.")
