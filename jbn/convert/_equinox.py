"""Batch norms out of, and into, an Equinox model and the `State` that its layers index."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jbn.convert._norms import SATURATED_COUNT, Layers, check_identity, make_norm


def from_equinox(model: Any, state: Any) -> Layers:
    """Returns the batch norms of an Equinox model and its `State`, by path (`"layers[1]"`).

    `mode="ema"` keeps the average itself. `mode="batch"` keeps a sum that began at 0, as Adam does;
    this returns it debiased, as its inference uses it. Without an affine map scale is 1 and bias 0.
    An ensemble, made under `eqx.filter_vmap`, is a stack of layers: axes before that of the
    features stay.
    """
    layers = {}
    for path, norm in _norms(model):
        indices = _indices(norm)
        mean, var = (np.asarray(v) for v in state.get(indices.average))
        if indices.counter is not None:
            count = np.asarray(state.get(indices.counter))[..., None]
            debias = np.where(count > 0, 1 - norm.momentum ** np.float64(count), 1)
            mean, var = ((v / debias).astype(v.dtype) for v in (mean, var))
        vectors = {
            "weight": np.ones_like(mean) if norm.weight is None else norm.weight,
            "bias": np.zeros_like(mean) if norm.bias is None else norm.bias,
            "mean": mean,
            "var": var,
        }
        keys = {_key(path, name): vector for name, vector in vectors.items()}
        layers[path] = make_norm(keys, stacks=True)
    if not layers:
        raise ValueError("Equinox model: found no batch norm in it.")
    return layers


def to_equinox(layers: Layers, model: Any, state: Any) -> tuple[Any, Any]:
    """Returns `model` and `state` with `layers` put in; other layers stay as they were.

    The counter is so large that debiasing by it changes nothing.
    """
    norms = dict(_norms(model))
    if unknown := sorted(layers.keys() - norms.keys()):
        raise ValueError(f"Equinox model: no batch norm at {unknown}. It has {sorted(norms)}.")
    leaves = {}
    for path, (affine, stats) in layers.items():
        norm, indices = norms[path], _indices(norms[path])
        shape = state.get(indices.average)[0].shape
        if stats.mean.shape != shape:
            raise ValueError(
                f"Equinox layer {path!r} has features of shape {shape}, its new running mean has "
                f"shape {stats.mean.shape}."
            )
        if norm.weight is None:
            for role, array in affine._asdict().items():
                check_identity(f"layer {path!r}", role, array)
        leaves |= {_key(path, "weight"): affine.scale, _key(path, "bias"): affine.bias}
        state = state.set(indices.average, tuple(stats))
        if indices.counter is None:
            state = state.set(indices.first, jnp.zeros(shape[:-1], bool))
        else:
            count = jnp.full_like(state.get(indices.counter), SATURATED_COUNT)
            state = state.set(indices.counter, count)
    paths, tree = jax.tree_util.tree_flatten_with_path(model)
    new = [leaves.get(_path(path), leaf) for path, leaf in paths]
    return jax.tree.unflatten(tree, new), state


class _Indices(NamedTuple):
    average: Any
    counter: Any  # of mode "batch"
    first: Any  # of mode "ema"


def _indices(norm: Any) -> _Indices:
    average = norm.ema_state_index if norm.batch_state_index is None else norm.batch_state_index
    return _Indices(average, norm.batch_counter, norm.ema_first_time_index)


def _norms(model: Any) -> list[tuple[str, Any]]:
    def is_norm(node):
        return hasattr(node, "ema_state_index") and hasattr(node, "batch_state_index")

    nodes, _ = jax.tree_util.tree_flatten_with_path(model, is_leaf=is_norm)
    return [(_path(path), node) for path, node in nodes if is_norm(node)]


def _path(keys: Any) -> str:
    return jax.tree_util.keystr(keys).lstrip(".")


def _key(path: str, name: str) -> str:
    return f"{path}.{name}".lstrip(".")
