"""Batch norms out of, and into, the states of PyTorch, Flax and Keras."""

from collections.abc import Callable, Collection, Mapping
from typing import Any

from jbn.convert._formats import KERAS, LINEN, NNX, TORCH, Format
from jbn.convert._norms import (
    Layers,
    Rename,
    Use,
    put_norms,
    read_norms,
    rename_layers,
    write_norms,
)
from jbn.convert._state import State, open_keras, open_linen, open_nnx, open_torch


def from_torch(
    model: Any,
    *,
    prefix: str = "",
    use_scale: Use = True,
    use_bias: Use = True,
    ignore: Collection[str] = (),
) -> Layers:
    """Returns the batch norms of a PyTorch model by module path (`"layer1.0.bn1"`).

    A batch norm is a module with running statistics. An InstanceNorm may have them under the same
    names: it is refused if `model` is a module, and in a `state_dict` it cannot be told apart.
    `num_batches_tracked` is not read; it matters only to `momentum=None`, whose next step is
    `momentum=n / (n + 1)` here.

    Args:
      model: a module, or the `state_dict` of a whole model or of one layer, whose path is then "".
      prefix: look only at this module and those inside it.
      use_scale, use_bias: False where layers of a `state_dict` may lack theirs, which then is 1, or
        0; or `{path: False}` for some of them. A layer that lacks both needs no word.
      ignore: layers by path, and arrays by name (`"steps"`), to leave out.

    Raises:
      ValueError: if there is no batch norm, keys are missing or unknown (all are listed by their
        full path), shapes disagree, or a running variance is negative.
      TypeError: for a value that is no floating-point array.

    >>> import numpy as np
    >>> layers = from_torch({"bn.running_mean": np.ones(2), "bn.running_var": np.full(2, 4.0),
    ...                      "bn.weight": np.ones(2), "bn.bias": np.zeros(2)})
    >>> affine, stats = layers["bn"]
    >>> print(stats.mean, stats.var)
    [1. 1.] [4. 4.]
    """
    return read_norms(open_torch(model), prefix, use_scale, use_bias, ignore)


def to_torch(
    layers: Layers,
    *,
    rename: Rename | None = None,
    into: Any = None,
    use_scale: Use = True,
    use_bias: Use = True,
) -> dict[str, Any]:
    """Returns entries of a PyTorch `state_dict`, as arrays: wrap each in `torch.from_numpy`.

    Without `num_batches_tracked`, which PyTorch then sets to 0.

    Args:
      layers: from any framework.
      rename: the layers' paths here, as a mapping of those that change or a function of each:
        `lambda path: path.replace("/", ".")`.
      into: a model or its whole state, which is returned with these layers in the place of its own,
        in its types. Layers that it does not have, and shapes that differ, are refused by name.
      use_scale, use_bias: False, or `{path: False}` for some, to leave out scales that are 1,
        biases that are 0. With `into` its own layers decide.

    Raises:
      ValueError: if a name or a shape does not fit, or what is left out is not the identity.
    """
    return _write(TORCH, open_torch, layers, rename, into, use_scale, use_bias)


def from_linen(
    variables: Mapping[str, Any],
    *,
    prefix: str = "",
    use_scale: Use = True,
    use_bias: Use = True,
    ignore: Collection[str] = (),
) -> Layers:
    """Returns the batch norms of Linen variables by path (`"Block_0/BatchNorm_0"`).

    Under `nn.vmap` or `nn.scan` a layer is a stack of layers: axes that come before the features in
    all four vectors stay. Of public `BatchRenorm` layers, which CrossQ has, say
    `ignore=("steps", "r_max", "d_max")`. Other arguments and errors: as `from_torch`.
    """
    return read_norms(open_linen(variables), prefix, use_scale, use_bias, ignore)


def to_linen(
    layers: Layers,
    *,
    rename: Rename | None = None,
    into: Mapping[str, Any] | None = None,
    use_scale: Use = True,
    use_bias: Use = True,
) -> dict[str, Any]:
    """Returns nested `params` and `batch_stats`; with `into=variables` the whole model's variables.

    Arguments and errors: as `to_torch`. Merge the nested dictionaries at every level, if you do it
    yourself: a name that the model does not have is ignored by Linen.

    >>> import jax, jax.numpy as jnp, jbn
    >>> print(jax.tree.map(jnp.shape, to_linen({"net/norm": jbn.init(2)})))
    {'batch_stats': {'net': {'norm': {'mean': (2,), 'var': (2,)}}},
     'params': {'net': {'norm': {'bias': (2,), 'scale': (2,)}}}}
    """
    new = _write(LINEN, open_linen, layers, rename, into, use_scale, use_bias)
    return _nest(new) if into is None else new


def from_nnx(
    model: Any,
    *,
    prefix: str = "",
    use_scale: Use = True,
    use_bias: Use = True,
    ignore: Collection[str] = (),
) -> Layers:
    """Returns the batch norms of a model, its `nnx.state` or pure dict, by path (`"layers/1"`).

    Stacks, made by `nnx.vmap`, as in `from_linen`; arguments and errors as in `from_torch`.
    """
    return read_norms(open_nnx(model), prefix, use_scale, use_bias, ignore)


def to_nnx(
    layers: Layers,
    *,
    rename: Rename | None = None,
    into: Any = None,
    use_scale: Use = True,
    use_bias: Use = True,
) -> dict[Any, Any]:
    """Returns a nested dict for `nnx.update(model, ...)`; numbers in paths index lists.

    `into` is the model, or its state: paths are then its own, also where a key is a numeral in
    quotes or holds a slash. Arguments and errors: as `to_torch`.
    """
    new = _write(NNX, open_nnx, layers, rename, into, use_scale, use_bias)
    return _nest(new, index=True) if into is None else new


def from_keras(
    model: Any,
    *,
    prefix: str = "",
    use_scale: Use = True,
    use_bias: Use = True,
    ignore: Collection[str] = (),
) -> Layers:
    """Returns the batch norms of a Keras model, or `{v.path: v for v in model.weights}`, by path.

    Keras's epsilon is 1e-3 unless its layer was told otherwise: pass it on. Names of tf.keras,
    which end in ":0", are read too. Of a layer with `renorm=True` say
    `ignore=("moving_stddev", "renorm_mean", "renorm_stddev")`. Other arguments and errors: as
    `from_torch`.
    """
    return read_norms(open_keras(model), prefix, use_scale, use_bias, ignore)


def to_keras(
    layers: Layers,
    *,
    rename: Rename | None = None,
    into: Any = None,
    use_scale: Use = True,
    use_bias: Use = True,
) -> dict[str, Any]:
    """Returns arrays by variable path: `v.assign(new[v.path])` for each variable `v` that has one.

    Arguments and errors: as `to_torch`.
    """
    return _write(KERAS, open_keras, layers, rename, into, use_scale, use_bias)


def _write(
    format: Format,
    open_target: Callable[[Any], State],
    layers: Layers,
    rename: Rename | None,
    into: Any,
    use_scale: Use,
    use_bias: Use,
) -> dict[Any, Any]:
    """Returns the arrays of `layers` by their whole keys, or `into` with them in their places."""
    layers = rename_layers(layers, rename)
    if into is not None:
        return put_norms(open_target(into), layers)
    return {
        format.join(path, name): array
        for path, vectors in write_norms(format, layers, use_scale, use_bias).items()
        for name, array in vectors.items()
    }


def _nest(flat: Mapping[str, Any], *, index: bool = False) -> dict[Any, Any]:
    tree: dict[Any, Any] = {}
    for key, value in flat.items():
        *above, name = key.split("/")
        node = tree
        for part in above:
            node = node.setdefault(int(part) if index and part.isdecimal() else part, {})
        node[name] = value
    return tree
