"""PyTorch, Flax and Keras: the four vectors lie side by side in a dictionary."""

import re
import sys
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, TypeAlias

import numpy as np

from jbn.convert._states import Layers, Names, nest, put_into, read, rename_layers, write

Rename: TypeAlias = Mapping[str, str] | Callable[[str], str]

_TORCH = Names(
    "PyTorch", ".", ("", "weight"), ("", "bias"), ("", "running_mean"), ("", "running_var"),
    others=(("", "num_batches_tracked"),),
)  # fmt: skip
_LINEN = Names(
    "Linen", "/", ("params", "scale"), ("params", "bias"), ("batch_stats", "mean"),
    ("batch_stats", "var"),
)  # fmt: skip
_NNX = Names("NNX", "/", ("", "scale"), ("", "bias"), ("", "mean"), ("", "var"))
_KERAS = Names(
    "Keras", "/", ("", "gamma"), ("", "beta"), ("", "moving_mean"), ("", "moving_variance")
)


def from_torch(
    state_dict: Mapping[str, Any],
    *,
    prefix: str = "",
    use_scale: bool = True,
    use_bias: bool = True,
) -> Layers:
    """The batch norms of a PyTorch `state_dict`, by module path (`"layer1.0.bn1"`).

    A batch norm is a module with running statistics. `num_batches_tracked` is neither needed nor
    read; it matters only to `momentum=None`, whose next step is `momentum=n / (n + 1)` here.

    Args:
      state_dict: of a whole model or of one layer, whose path is then `""`.
      prefix: look only at this module and those inside it.
      use_scale, use_bias: False where layers may lack theirs, which then is 1, or 0.

    Raises:
      ValueError: if there is no batch norm, keys are missing or unknown (all are listed by their
        full path), shapes disagree, or a running variance is negative.
      TypeError: for a value that is no floating-point array; numpy reads no bfloat16 tensor.

    >>> layers = from_torch({"bn.running_mean": np.ones(2), "bn.running_var": np.full(2, 4.0),
    ...                      "bn.weight": np.ones(2), "bn.bias": np.zeros(2)})
    >>> affine, stats = layers["bn"]
    >>> print(stats.mean, stats.var)
    [1. 1.] [4. 4.]
    """
    return read(_TORCH, state_dict, prefix, use_scale, use_bias)


def to_torch(
    layers: Layers,
    *,
    rename: Rename | None = None,
    into: Mapping[str, Any] | None = None,
    use_scale: bool = True,
    use_bias: bool = True,
) -> dict[str, Any]:
    """Entries of a PyTorch `state_dict`, as arrays: wrap each in `torch.from_numpy`.

    Without `num_batches_tracked`, which PyTorch then sets to 0.

    Args:
      layers: from any framework.
      rename: the layers' paths here, as a mapping of those that change or a function of each:
        `lambda path: path.replace("/", ".")`.
      into: a model's whole state, which is returned with these layers in the place of its own, in
        its types. Layers that it does not have, and shapes that differ, are refused by name.
      use_scale, use_bias: False to leave out scales that are 1, biases that are 0. With `into`
        its own layers decide.

    Raises:
      ValueError: if a name or a shape does not fit, or what is left out is not the identity.
    """
    return _write(_TORCH, layers, use_scale, use_bias, rename, into)


def from_linen(
    variables: Mapping[str, Any],
    *,
    prefix: str = "",
    use_scale: bool = True,
    use_bias: bool = True,
) -> Layers:
    """The batch norms of Linen variables, by path (`"Block_0/BatchNorm_0"`).

    With collections `params` and `batch_stats`. Arguments and errors: as `from_torch`.
    """
    return read(_LINEN, variables, prefix, use_scale, use_bias)


def to_linen(
    layers: Layers,
    *,
    rename: Rename | None = None,
    into: Mapping[str, Any] | None = None,
    use_scale: bool = True,
    use_bias: bool = True,
) -> dict[str, Any]:
    """Nested `params` and `batch_stats`; with `into=variables` the variables of the whole model.

    Arguments and errors: as `to_torch`. Merge the nested dictionaries at every level, if you do it
    yourself: a name that the model does not have is ignored by Linen.

    >>> import jax, jax.numpy as jnp, jbn
    >>> print(jax.tree.map(jnp.shape, to_linen({"net/norm": jbn.init(2)})))
    {'batch_stats': {'net': {'norm': {'mean': (2,), 'var': (2,)}}},
     'params': {'net': {'norm': {'bias': (2,), 'scale': (2,)}}}}
    """
    return _write(_LINEN, layers, use_scale, use_bias, rename, into, nest)


def from_nnx(
    state: Any, *, prefix: str = "", use_scale: bool = True, use_bias: bool = True
) -> Layers:
    """The batch norms of a model, `nnx.state(model)` or its pure dict, by path (`"layers/1"`).

    Arguments and errors: as `from_torch`.
    """
    return read(_NNX, _pure(state), prefix, use_scale, use_bias)


def to_nnx(
    layers: Layers,
    *,
    rename: Rename | None = None,
    into: Any = None,
    use_scale: bool = True,
    use_bias: bool = True,
) -> dict[Any, Any]:
    """A nested dict for `nnx.update(model, ...)`; numbers in paths index lists.

    `into` is the model, or its state: paths are then its own, also where a key is a numeral in
    quotes or holds a slash. Arguments and errors: as `to_torch`.
    """
    nested = partial(nest, index=True)
    return _write(_NNX, layers, use_scale, use_bias, rename, _pure(into), nested)


def _pure(state: Any) -> Any:
    """The nested dictionary of a model of NNX, or of its state."""
    if state is None or type(state) is dict:
        return state
    nnx = sys.modules["flax.nnx"]  # loaded, or there would be no object of its own
    return nnx.to_pure_dict(nnx.state(state) if isinstance(state, nnx.Module) else state)


def from_keras(
    weights: Mapping[str, Any],
    *,
    prefix: str = "",
    use_scale: bool = True,
    use_bias: bool = True,
) -> Layers:
    """The batch norms of `{v.path: v.numpy() for v in model.variables}`, by path.

    Keras's epsilon is 1e-3 unless its layer was told otherwise: pass it on. Arguments and errors:
    as `from_torch`; the state of a renormalising layer counts as unknown. Names of tf.keras, which
    end in ":0", are read too.
    """
    plain = {re.sub(r":\d+$", "", path): value for path, value in weights.items()}
    return read(_KERAS, plain, prefix, use_scale, use_bias)


def to_keras(
    layers: Layers,
    *,
    rename: Rename | None = None,
    into: Mapping[str, Any] | None = None,
    use_scale: bool = True,
    use_bias: bool = True,
) -> dict[str, np.ndarray]:
    """Arrays by variable path: `v.assign(new[v.path])` for each variable `v` that has one.

    Arguments and errors: as `to_torch`.
    """
    return _write(_KERAS, layers, use_scale, use_bias, rename, into)


def _write(names, layers, use_scale, use_bias, rename, into, nested=lambda flat: flat) -> Any:
    layers = rename_layers(layers, rename)
    if into is not None:
        return put_into(names, layers, into)
    return nested(write(names, layers, use_scale, use_bias))
