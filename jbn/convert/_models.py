"""Whole models from PyTorch, Keras and Haiku into Flax, Linen or NNX, and back."""

from collections.abc import Collection, Mapping
from typing import Any

import numpy as np

from jbn.convert._formats import HAIKU
from jbn.convert._layouts import Flatten, check_flattened, read_layers, write_layer
from jbn.convert._match import complete, match
from jbn.convert._norms import SATURATED_COUNT, Rename, refuse_instance_norm
from jbn.convert._state import State, open_flax, open_haiku, open_keras, open_torch


def model_from_torch(
    model: Any,
    *,
    into: Any,
    rename: Rename | None = None,
    ignore: Collection[str] = (),
    flatten: Flatten | None = None,
    transpose_kernel: bool = False,
) -> tuple[Any, dict[str, str]]:
    """Brings the layers of a PyTorch model into a Flax model: Dense, Conv, norms and embeddings.

    Each layer goes where `rename` says; else to the layer of the same path (`"layer1.0.conv1"` to
    `layer1/0/conv1`); else to the only layer of its shapes, if it is alone in fitting there. Every
    layer must go somewhere, and every layer of `into` must come from one, but for those in
    `ignore`. Kernels are transposed from (O, I, *window) to (*window, I, O).

    What the arrays do not tell is yours to know: padding (PyTorch's is symmetric, also where
    Flax's "SAME" is not), epsilon (give it to the new layers) and, in a `state_dict`, what its
    layers are: an InstanceNorm with running statistics looks like a batch norm there, and a square
    ConvTranspose like a Conv. Pass the module, where you have it. Compare the outputs on one batch.

    Args:
      model: a module or its `state_dict`.
      into: Linen variables (`jax.eval_shape` of `init` is enough), or an `nnx.Module` or its state.
      rename: the path in `into` of a layer of `model`, as a mapping of those that change, or as a
        function of each.
      ignore: layers and modules by path, of either side, and arrays by name, to leave alone.
      flatten: the shape (channels, *window) of the feature map whose flattening a Linear reads, by
        the Linear's path: PyTorch flattens channels first, Flax channels last. A norm between them
        has the same shape. None says that nothing was flattened: a Linear that reads more features
        than any layer gives out is refused until its path is here.
      transpose_kernel: whether the transposed convolutions of `into` have `transpose_kernel=True`.
        Only then are their kernels laid out as PyTorch's; otherwise such a layer is refused.

    Returns:
      `into` with the new arrays in the types of its own, as `to_linen` and `to_nnx` return it, and
      a report: the path in `into` by that in `model`.

    Raises:
      ValueError: if a layer has no counterpart, or several, which are named, or does not fit it.

    >>> import jax.numpy as jnp, numpy as np
    >>> state = {"fc.weight": np.ones((3, 2)), "fc.bias": np.zeros(3)}
    >>> into = {"params": {"head": {"kernel": jnp.zeros((2, 3)), "bias": jnp.ones(3)}}}
    >>> variables, moved = model_from_torch(state, into=into)
    >>> print(moved, variables["params"]["head"]["kernel"].shape)
    {'fc': 'head'} (2, 3)
    """
    source, target = open_torch(model), open_flax(into)
    return _transfer(source, target, rename, ignore, transpose_kernel, flatten)


def model_to_torch(
    model: Any,
    *,
    into: Any,
    rename: Rename | None = None,
    ignore: Collection[str] = (),
    flatten: Flatten | None = None,
    transpose_kernel: bool = False,
) -> tuple[dict[str, Any], dict[str, str]]:
    """Brings the layers of a Flax model into a PyTorch model: `model_from_torch` the other way.

    `model` is Linen variables or an `nnx.Module`, `into` a module or its `state_dict`. Returns the
    whole `state_dict`, for `load_state_dict`, and the report. The report of the way there, turned
    round, is the `rename` of the way back: `{there: here for here, there in moved.items()}`. The
    paths in `flatten` are PyTorch's, as there.
    """
    source, target = open_flax(model), open_torch(into)
    return _transfer(source, target, rename, ignore, transpose_kernel, flatten)


def model_from_keras(
    model: Any,
    *,
    into: Any,
    rename: Rename | None = None,
    ignore: Collection[str] = (),
    transpose_kernel: bool = False,
) -> tuple[Any, dict[str, str]]:
    """Brings the layers of a Keras model into a Flax model, as `model_from_torch` does.

    `model` is the model, or `{v.path: v for v in model.weights}`. Kernels stay as they are, but for
    those of `DepthwiseConv`, which are known by the layer's class or name. Keras's epsilon is 1e-3
    and its momentum 0.99 unless the layer was told otherwise. With `data_format="channels_first"`
    a Flatten before a Dense has another order than Flax's, which is not seen here.
    """
    return _transfer(open_keras(model), open_flax(into), rename, ignore, transpose_kernel)


def model_to_keras(
    model: Any,
    *,
    into: Any,
    rename: Rename | None = None,
    ignore: Collection[str] = (),
    transpose_kernel: bool = False,
) -> tuple[dict[str, Any], dict[str, str]]:
    """Brings the layers of a Flax model into a Keras model: `model_from_keras` the other way.

    Returns arrays by variable path, `v.assign(new[v.path])` for each, and the report.
    """
    return _transfer(open_flax(model), open_keras(into), rename, ignore, transpose_kernel)


def model_from_haiku(
    params: Mapping[str, Any],
    state: Mapping[str, Any],
    *,
    into: Any,
    rename: Rename | None = None,
    ignore: Collection[str] = (),
) -> tuple[Any, dict[str, str]]:
    """Brings the layers of a Haiku model into a Flax model, as `model_from_torch` does.

    Kernels stay as they are; transposed convolutions, known by "transpose" in their names, are
    refused. Of each running average this takes the debiased one.
    """
    source, target = open_haiku(params, state), open_flax(into)
    return _transfer(source, target, rename, ignore)


def model_to_haiku(
    model: Any,
    *,
    into: tuple[Mapping[str, Any], Mapping[str, Any]],
    rename: Rename | None = None,
    ignore: Collection[str] = (),
) -> tuple[tuple[dict[str, Any], dict[str, Any]], dict[str, str]]:
    """Brings the layers of a Flax model into Haiku's `into=(params, state)`.

    Returns that with the report. Counters are so large that Haiku's debiasing changes nothing.
    """
    params, state = into
    target = open_haiku(params, state)
    new, moved = _transfer(open_flax(model), target, rename, ignore)
    for path in moved.values():
        for average in HAIKU.norm["mean"], HAIKU.norm["var"]:
            if (module := f"{path}/{average.removesuffix('/average')}") in state:
                new[module]["hidden"] = new[module]["average"]
                new[module]["counter"] = np.asarray(SATURATED_COUNT, np.int32)
    split = [{m: {k: new[m][k] for k in arrays} for m, arrays in old.items()} for old in into]
    return (split[0], split[1]), moved


def _transfer(
    source: State,
    target: State,
    rename: Rename | None,
    ignore: Collection[str],
    transpose_kernel: bool = False,
    flatten: Flatten | None = None,
) -> tuple[Any, dict[str, str]]:
    flatten = flatten or {}
    given = read_layers(source.without(ignore), flatten)
    wanted = read_layers(target.without(ignore), flatten, shapes_only=True)
    moved = match(source, target, given, wanted, rename)
    layers = {}
    for here, there in moved.items():
        refuse_instance_norm(source, here)
        refuse_instance_norm(target, there)
        window = any(layer.get("kernel", np.zeros(())).ndim > 2 for layer in given[here])
        is_transposed = "transpose" in source.kind(here) or "transpose" in target.kind(there)
        if window and is_transposed and not transpose_kernel:
            raise ValueError(f"{here!r} to {there!r} is a transposed convolution. {_TRANSPOSED}")
        layers[there] = complete(here, given[here], there, wanted[there])

    if source.format.outputs_first or target.format.outputs_first:
        theirs = moved if source.format.outputs_first else moved.values()
        check_flattened(dict(zip(theirs, layers.values())), flatten)
    new = {there: write_layer(target, there, layers[there], flatten) for there in layers}
    return target.replace(new), moved


_TRANSPOSED = (
    "PyTorch and Keras lay out its kernel as Flax does under transpose_kernel=True: build that "
    "layer so and say transpose_kernel=True here. Haiku flips its window as well: leave it alone "
    "with ignore=[...], and bring w.swapaxes(-1, -2) to a layer of Flax's defaults yourself."
)
