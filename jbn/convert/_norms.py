"""Batch norms of a model's state as `(Affine, RunningStats)`, found by names and put back."""

from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping
from typing import Any, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np

from jbn._numerics.arrays import as_array, statistics_dtype
from jbn._types import Affine, RunningStats
from jbn.convert._formats import Format
from jbn.convert._state import State, is_inside, read_array

Layers: TypeAlias = dict[str, tuple[Affine, RunningStats]]
Rename: TypeAlias = Mapping[str, str] | Callable[[str], str]
Use: TypeAlias = bool | Mapping[str, bool]

SATURATED_COUNT = 2**30  # steps after which debiasing changes nothing


def read_norms(
    state: State, prefix: str, use_scale: Use, use_bias: Use, ignore: Collection[str]
) -> Layers:
    format = state.format
    statistics = {format.norm["mean"], format.norm["var"]}
    norms = {
        path: arrays
        for path, arrays in state.without(ignore).layers.items()
        if statistics & arrays.keys() and is_inside(path, prefix, format.separator)
    }
    if not norms:
        where = f" in {prefix!r}" if prefix else ""
        mean, var = (format.join("", format.norm[role]) for role in ("mean", "var"))
        keys = [format.join(path, name) for path, names in state.layers.items() for name in names]
        raise ValueError(
            f"{format.framework} state: found no batch norm{where}, which is a layer with {mean!r} "
            f"and {var!r}. The keys begin with {keys[:5]}."
        )
    _check_names(state, norms, use_scale, use_bias)
    return {path: _read_norm(format, path, arrays) for path, arrays in norms.items()}


def _check_names(state: State, norms: Mapping[str, Any], use_scale: Use, use_bias: Use) -> None:
    """Refuses missing and unknown arrays.

    A layer may lack its scale or bias if a model says so, which cannot lose one, or the caller. It
    may lack both where the state holds other parameters, and so was not cut down to statistics.
    """
    format = state.format
    affine, statistics = {"scale", "bias"}, {format.norm["mean"], format.norm["var"]}
    learned = {*format.norm.values(), *format.kernel.values(), *format.embedding.values()}
    has_parameters = any((learned - statistics) & arrays.keys() for arrays in state.layers.values())
    missing, unknown, advice = [], [], ""
    for path, arrays in norms.items():
        refuse_instance_norm(state, path)
        lacks = {role for role, name in format.norm.items() if name not in arrays}
        if state.classes is not None or (lacks == affine and has_parameters):
            lacks -= affine
        uses = {"scale": _uses(use_scale, path), "bias": _uses(use_bias, path)}
        lacks = {role for role in lacks if uses.get(role, True)}
        missing += [format.join(path, format.norm[role]) for role in format.norm if role in lacks]
        known = {*format.norm.values(), *format.spare}
        unknown += [format.join(path, name) for name in arrays if name not in known]
        if lacks & affine:
            advice = (
                " Layers that have no scale or no bias: say use_scale=False or use_bias=False, or "
                "{path: False} for some of them."
            )
    if unknown:
        names = sorted({key.rpartition(format.separator)[2] for key in unknown})
        advice += f" If nothing else depends on the unknown ones: say ignore={names}."
    if missing or unknown:
        raise ValueError(
            f"{format.framework} state: missing keys {missing}, unknown keys {unknown}.{advice}"
        )


def _read_norm(format: Format, path: str, arrays: Mapping[str, Any]) -> tuple[Affine, RunningStats]:
    shape = np.shape(arrays[format.norm["mean"]])
    identity = {"scale": np.ones(shape, np.float32), "bias": np.zeros(shape, np.float32)}
    vectors = {
        format.join(path, name): arrays.get(name, identity.get(role))
        for role, name in format.norm.items()
    }
    return make_norm(vectors, squeeze=format.squeeze, stacks=format.stacks)


def make_norm(
    vectors: Mapping[str, Any], *, squeeze: bool = False, stacks: bool = False
) -> tuple[Affine, RunningStats]:
    """Returns a layer from its four vectors, in the order scale, bias, mean, var, each by its key.

    Args:
      squeeze: drop axes of length one before that of the features.
      stacks: allow axes before that of the features.
    """
    checked = {key: _read_vector(key, value, squeeze, stacks) for key, value in vectors.items()}
    shapes = {key: array.shape for key, array in checked.items()}
    if len(set(shapes.values())) > 1:
        raise ValueError(f"the vectors of one layer must have one shape, got {shapes}.")
    scale, bias, mean, var = checked.values()
    if np.any(np.asarray(var) < 0):
        raise ValueError(
            f"{list(vectors)[3]} holds a negative variance, {float(jnp.min(var)):g}: the state is "
            "damaged, or is not of a batch norm."
        )
    mean, var = (v.astype(statistics_dtype(v.dtype)) for v in (mean, var))
    return Affine(scale, bias), RunningStats(mean, var)


def _read_vector(key: str, value: Any, squeeze: bool, stacks: bool) -> jax.Array:
    array = read_array(key, value)
    if squeeze:
        array = squeeze_vector(array)
    if array.ndim != 1 and not (stacks and array.ndim):
        raise ValueError(f"{key} must have one axis, the features, got shape {array.shape}.")
    return as_array(array, key)


def squeeze_vector(array: np.ndarray) -> np.ndarray:
    return array.reshape(-1) if array.size == max(array.shape, default=0) else array


def write_norms(
    format: Format, layers: Layers, use_scale: Use, use_bias: Use
) -> dict[str, dict[str, np.ndarray]]:
    """Returns the vectors of `layers` by path and by the framework's names."""
    new: dict[str, dict[str, np.ndarray]] = {}
    for path, (affine, stats) in layers.items():
        if stats.mean.ndim > 1 and not format.stacks:
            raise ValueError(
                f"layer {path!r} is a stack of layers, of shape {stats.mean.shape}, and "
                f"{format.framework} has none. Take one: jax.tree.map(lambda v: v[0], layers)."
            )
        vectors = affine._asdict() | stats._asdict()
        for role, use in (("scale", use_scale), ("bias", use_bias)):
            if not _uses(use, path):
                check_identity(f"layer {path!r}", role, vectors.pop(role))
        new[path] = {
            name: np.array(vectors[role]) for role, name in format.norm.items() if role in vectors
        }
    return new


def put_norms(state: State, layers: Layers) -> dict[Any, Any]:
    """Returns a whole model's state with the vectors of `layers` in the place of its own."""
    format = state.format
    norms = {path: a for path, a in state.layers.items() if format.norm["mean"] in a}
    if unknown := [path for path in layers if path not in norms]:
        raise ValueError(
            f"{format.framework} target: no batch norm is called {unknown}. It has "
            f"{list(norms)}. Say which is which: rename={{{unknown[0]!r}: ...}}."
        )
    for path in layers:
        refuse_instance_norm(state, path)
    has_scale, has_bias = (
        {path: format.norm[role] in norms[path] for path in layers} for role in ("scale", "bias")
    )
    new = write_norms(format, layers, has_scale, has_bias)
    shapes = {
        format.join(path, name): (vector.shape, tuple(norms[path][name].shape))
        for path, vectors in new.items()
        for name, vector in vectors.items()
    }
    if wrong := {key: pair for key, pair in shapes.items() if pair[0] != pair[1]}:
        raise ValueError(f"{format.framework} target: shapes (given, there) differ: {wrong}.")
    return state.replace(new)


def rename_paths(paths: Iterable[str], rename: Rename | None) -> dict[str, str]:
    """Returns the new path of each: by a mapping of those that change, or a function of all."""
    pairs = {path: path for path in paths}
    if isinstance(rename, Mapping):
        if unknown := [path for path in rename if path not in pairs]:
            raise ValueError(f"rename has {unknown}, and the layers are {list(pairs)}.")
        pairs |= rename
    elif rename is not None:
        pairs = {path: rename(path) for path in pairs}
    if twice := [path for path, count in Counter(pairs.values()).items() if count > 1]:
        raise ValueError(f"rename gives {twice} to more than one layer.")
    return pairs


def rename_layers(layers: Layers, rename: Rename | None) -> Layers:
    return {path: layers[old] for old, path in rename_paths(layers, rename).items()}


def refuse_instance_norm(state: State, path: str) -> None:
    if "instancenorm" in state.kind(path) and state.format.norm["mean"] in state.layers[path]:
        raise ValueError(
            f"{path!r} is an InstanceNorm, which normalises each example by itself in training: no "
            f"batch norm. Leave it out, with ignore=[{path!r}] where it is read."
        )


def check_identity(layer: str, role: str, array: Any) -> None:
    """Refuses to leave out a scale that is not 1, or a bias that is not 0."""
    identity = int(role == "scale")
    if np.any(np.asarray(array) != identity):
        raise ValueError(
            f"{layer} has a {role} that is not {identity}, and what it is written to has no {role}."
        )


def _uses(use: Use, path: str) -> bool:
    return use.get(path, True) if isinstance(use, Mapping) else use
