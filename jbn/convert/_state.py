"""The state of a model as arrays by layer, read from a framework's dictionary or model."""

import re
import sys
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np

from jbn._numerics.arrays import as_array
from jbn.convert._formats import HAIKU, KERAS, LINEN, NNX, TORCH, Format


class State(NamedTuple):
    """The arrays of a model, by layer.

    Attributes:
      format: names and layouts of its framework.
      tree: its arrays in the framework's own dictionary, nested or not.
      layers: the same by path and name.
      classes: the class of each layer, where a model was given and not only a dictionary.
    """

    format: Format
    tree: Mapping[Any, Any]
    layers: dict[str, dict[str, Any]]
    classes: Mapping[str, str] | None

    @classmethod
    def of(cls, format: Format, tree: Any, classes: Mapping[str, str] | None = None) -> "State":
        if not isinstance(tree, Mapping):
            raise TypeError(
                f"a {format.framework} state must be a dictionary of arrays, got "
                f"{type(tree).__module__}.{type(tree).__qualname__}."
            )
        layers: dict[str, dict[str, Any]] = {}
        for keys, value in _leaves(tree):
            path, name = format.split(keys)
            layers.setdefault(path, {})[name] = value
        return cls(format, tree, layers, classes)

    def kind(self, path: str) -> str:
        """Returns the class of a layer, or the last part of its path; in lower case."""
        if self.classes is None:
            return path.rpartition(self.format.separator)[2].lower()
        return self.classes.get(path, "").lower()

    def without(self, ignore: Iterable[str]) -> "State":
        """Returns the state less the layers, modules and arrays that `ignore` names."""
        ignore = (ignore,) if isinstance(ignore, str) else tuple(ignore)
        layers = {
            path: {n: v for n, v in arrays.items() if n.rpartition("/")[2] not in ignore}
            for path, arrays in self.layers.items()
            if not any(is_inside(path, name, self.format.separator) for name in ignore)
        }
        return self._replace(layers={path: arrays for path, arrays in layers.items() if arrays})

    def replace(self, new: Mapping[str, Mapping[str, np.ndarray]]) -> dict[Any, Any]:
        """Returns the tree with the arrays of `new`, by path and name, in the old ones' types."""

        def rebuild(tree, above):
            result = {}
            for key, old in tree.items():
                keys = (*above, key)
                path, name = self.format.split(keys)
                if isinstance(old, Mapping):
                    result[key] = rebuild(old, keys)
                elif name in new.get(path, {}):
                    result[key] = _in_type_of(old, new[path][name], self.format.join(path, name))
                else:
                    result[key] = old
            return result

        return rebuild(self.tree, ())


def open_torch(model: Any) -> State:
    """Reads a module, whose layers' classes are then known, or a `state_dict`."""
    if not hasattr(model, "named_modules"):
        return State.of(TORCH, model)
    # With the bases, so that a subclass of InstanceNorm2d is known as well.
    classes = {
        path: " ".join(base.__name__ for base in type(module).__mro__)
        for path, module in model.named_modules()
    }
    return State.of(TORCH, model.state_dict(), classes)


def open_linen(variables: Any) -> State:
    return State.of(LINEN, variables)


def open_nnx(model: Any) -> State:
    """Reads a module, whose layers' classes are then known, its state or a pure dictionary."""
    if not _is_nnx(model):
        return State.of(NNX, model)
    nnx = sys.modules["flax.nnx"]
    if isinstance(model, nnx.State):
        return State.of(NNX, nnx.to_pure_dict(model))
    classes = {
        "/".join(map(str, path)): type(module).__name__ for path, module in nnx.iter_modules(model)
    }
    return State.of(NNX, nnx.to_pure_dict(nnx.state(model)), classes)


def open_flax(model: Any) -> State:
    """Reads Linen variables, which have a collection `params`, or a model or state of NNX."""
    if _is_nnx(model):
        return open_nnx(model)
    if isinstance(model, Mapping) and "params" in model:
        return open_linen(model)
    raise TypeError(
        "a Flax model must be Linen variables with a collection 'params', an nnx.Module or an "
        f"nnx.State, got {type(model).__qualname__}"
        + (f" of {list(model)[:5]}." if isinstance(model, Mapping) else ".")
    )


def _is_nnx(model: Any) -> bool:
    nnx = sys.modules.get("flax.nnx")  # loaded, or there would be no object of its own
    return nnx is not None and isinstance(model, nnx.Module | nnx.State)


def open_keras(model: Any) -> State:
    """Reads a model, whose layers' classes are then known, or arrays by the variables' paths."""
    if isinstance(model, Mapping):  # of tf.keras, whose names end in ":0", as well
        return State.of(KERAS, {re.sub(r":\d+$", "", path): v for path, v in model.items()})
    if not hasattr(model, "_flatten_layers"):
        return State.of(KERAS, model)
    classes = {
        variable.path.rpartition("/")[0]: type(layer).__name__
        for layer in model._flatten_layers()
        for variable in layer.weights
    }
    tree = {variable.path: variable for variable in model.weights}
    if len(tree) < len(model.weights):
        raise ValueError(
            "several variables of the Keras model have one path: name its layers apart."
        )
    return State.of(KERAS, tree, classes)


def open_haiku(params: Mapping[str, Any], state: Mapping[str, Any]) -> State:
    modules = dict.fromkeys([*params, *state])
    return State.of(
        HAIKU, {name: {**params.get(name, {}), **state.get(name, {})} for name in modules}
    )


def is_inside(path: str, module: str, separator: str) -> bool:
    module = module.rstrip(separator)
    return not module or path == module or path.startswith(module + separator)


def read_array(key: str, value: Any) -> np.ndarray:
    """Returns a floating-point array of any library as NumPy's, or names what is wrong with it."""
    try:
        if hasattr(value, "detach"):  # a tensor, which may be on a device or require a gradient
            value = value.detach().cpu()
        bfloat16 = str(getattr(value, "dtype", "")) == "torch.bfloat16"  # NumPy has no such type
        array = value.float().numpy().astype(jnp.bfloat16) if bfloat16 else value
        array = array if isinstance(array, np.ndarray) else np.asarray(array)
        floating = jnp.issubdtype(array.dtype, jnp.floating)
    except (TypeError, RuntimeError) as error:
        raise TypeError(
            f"{key}: numpy cannot read this {type(value).__name__} ({error}). Convert it first, "
            "for example with .detach().float().cpu().numpy()."
        ) from error
    if not floating:
        raise TypeError(f"{key} must hold floating-point numbers, got {array.dtype}.")
    if isinstance(array, np.ma.MaskedArray):
        as_array(array, key)  # which refuses it
    if not np.all(np.isfinite(array)):
        raise ValueError(f"{key} holds numbers that are not finite.")
    return array


def _leaves(tree: Mapping[Any, Any], above: tuple[Any, ...] = ()) -> Iterator[tuple[tuple, Any]]:
    for key, value in tree.items():
        if isinstance(value, Mapping):
            yield from _leaves(value, (*above, key))
        else:
            yield (*above, key), value


def _in_type_of(old: Any, new: np.ndarray, key: str) -> Any:
    if hasattr(old, "new_tensor"):  # PyTorch's: on its device too
        value = old.new_tensor(new.astype(np.float32) if new.dtype == jnp.bfloat16 else new)
        finite = bool(value.isfinite().all())
    else:
        with np.errstate(over="ignore"):
            value = new.astype(jnp.dtype(old.dtype))
        finite = bool(np.all(np.isfinite(value)))
    if not finite:
        raise ValueError(
            f"{key} is {old.dtype}, which cannot hold numbers as large as the new ones."
        )
    return value
