"""Equinox: fields of a layer, and a `State` that is asked by the layer's indices."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jbn.convert._states import LONG_AGO, Layers, check_identity, make_layer


def from_equinox(model: Any, state: Any) -> Layers:
    """The batch norms of an Equinox model and its `State`, by path (`"layers[1]"`).

    `mode="ema"` keeps the average itself; of `mode="batch"` this takes the debiased one, which is
    what its inference uses. Without an affine map scale is 1 and bias 0.
    """
    layers = {}
    for path, norm in _equinox_norms(model):
        indices = _equinox_indices(norm)
        mean, var = (np.asarray(v) for v in state.get(indices.average))
        if indices.counter is not None and (counter := int(state.get(indices.counter))):
            mean, var = (v / (1 - norm.momentum**counter) for v in (mean, var))
        vectors = {
            "weight": np.ones_like(mean) if norm.weight is None else norm.weight,
            "bias": np.zeros_like(mean) if norm.bias is None else norm.bias,
            "mean": mean,
            "var": var,
        }
        layers[path] = make_layer({f"{path}.{name}".lstrip("."): v for name, v in vectors.items()})
    if not layers:
        raise ValueError("Equinox model: found no batch norm in it.")
    return layers


def to_equinox(layers: Layers, model: Any, state: Any) -> tuple[Any, Any]:
    """`model` and `state` with `layers` put in; layers that are not named stay as they were.

    The counter is so large that debiasing by it changes nothing.
    """
    norms = dict(_equinox_norms(model))
    if unknown := sorted(layers.keys() - norms.keys()):
        raise ValueError(f"Equinox model: no batch norm at {unknown}. It has {sorted(norms)}.")
    leaves = {}
    for path, (affine, stats) in layers.items():
        norm = norms[path]
        if norm.weight is None:
            check_identity(f"Equinox layer {path!r}", affine, scale=False, bias=False)
        if stats.mean.shape != (norm.input_size,):
            raise ValueError(
                f"Equinox layer {path!r} has {norm.input_size} features, its new running mean has "
                f"shape {stats.mean.shape}."
            )
        leaves |= {
            f"{path}.weight".lstrip("."): affine.scale,
            f"{path}.bias".lstrip("."): affine.bias,
        }
        indices = _equinox_indices(norm)
        state = state.set(indices.average, tuple(stats))
        if indices.counter is None:
            state = state.set(indices.first, jnp.asarray(False))
        else:
            state = state.set(indices.counter, jnp.asarray(LONG_AGO))
    paths, tree = jax.tree_util.tree_flatten_with_path(model)
    new = [leaves.get(jax.tree_util.keystr(path).lstrip("."), leaf) for path, leaf in paths]
    return jax.tree.unflatten(tree, new), state


class _EquinoxIndices(NamedTuple):
    average: Any
    counter: Any  # of mode "batch"
    first: Any  # of mode "ema"


def _equinox_indices(norm: Any) -> _EquinoxIndices:
    average = norm.ema_state_index if norm.batch_state_index is None else norm.batch_state_index
    return _EquinoxIndices(average, norm.batch_counter, norm.ema_first_time_index)


def _equinox_norms(model: Any) -> list[tuple[str, Any]]:
    def is_norm(node):
        return hasattr(node, "ema_state_index") and hasattr(node, "batch_state_index")

    nodes, _ = jax.tree_util.tree_flatten_with_path(model, is_leaf=is_norm)
    return [(jax.tree_util.keystr(path).lstrip("."), node) for path, node in nodes if is_norm(node)]
