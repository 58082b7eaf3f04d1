"""Norms under study, at named places of any network: none, a batch norm variant or a Flax module.

A network is written once, `norm("norm_1")(x)` where the norm under study belongs; whether it
trains, or infers with which statistics, is said here and not there.
"""

import dataclasses
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from experiments.study.values import ConfigError, blame, show
from jbn import Variant
from jbn.linen import BatchNorm

# What a place gives out, in the collection "intermediates".
OUT = "out"

_ALLOWED = (
    "None, a variant such as Standard(), a Flax module such as nn.LayerNorm(), or a function that "
    "returns one"
)


@dataclass(frozen=True)
class Norm:
    """The norm under study: `norm(name)` is a Flax module for that place in a network.

    Attributes:
      layer: the module, for every place a copy of it; None for no norm.
      places: paths of all places in the network, in order, once they are known. Noise is another
        at each.
    """

    layer: nn.Module | None
    places: tuple[str, ...] = ()

    @classmethod
    def of(cls, value: Any, places: tuple[str, ...] = (), **batch_norm: Any) -> "Norm":
        """Returns the norm that a config's `value` stands for; a variant with these options.

        Raises:
            ConfigError: for a value that is no norm.
        """
        if value is None:
            return cls(None, places)
        if is_variant(value):
            return cls(BatchNorm(variant=value, **batch_norm), places)
        made = value
        if callable(value) and not isinstance(value, nn.Module):
            with blame(f"norms: {show(value)}"):
                made = value()
        if not isinstance(made, nn.Module) or made.scope is not None:
            raise ConfigError(f"norms: {show(value)}: needs {_ALLOWED}.")
        return cls(made, places)

    def __call__(self, name: str) -> "Place":
        """Makes the layer under study at the place called `name`, within a compact `__call__`."""
        return Place(self, name=name)

    @property
    def has_bias(self) -> bool:
        """Tells whether the norm adds a bias of its own, so that a layer before it needs none."""
        return bool(getattr(self.layer, "use_bias", False))

    @property
    def is_stateless(self) -> bool:
        """Tells whether it infers as it trains."""
        return not hasattr(self.layer, "use_running_average")

    def in_training(self, axis_name: str | None = None) -> "Norm":
        """Returns it with a batch's own statistics, those of all devices along `axis_name`."""
        return self._with(use_running_average=False, axis_name=axis_name)

    def of_population(self) -> "Norm":
        """Returns it such that running statistics become those of the batch it is given."""
        return self._as_it_infers()._with(use_running_average=False, momentum=0.0)

    def at_inference(self) -> "Norm":
        """Returns it with running statistics, where it has any."""
        return self._as_it_infers()._with(use_running_average=True)

    def fold_in(self, *numbers: jax.Array | int) -> "Norm":
        """Returns it with `numbers` folded into its random keys, if it has any."""
        variant = self._variant
        for number in numbers:
            variant = fold_in(variant, number)
        return self if variant is None else self._with(variant=variant)

    @property
    def _variant(self) -> Any:
        return self.layer.variant if isinstance(self.layer, BatchNorm) else None

    def _as_it_infers(self) -> "Norm":
        variant = self._variant
        return self if variant is None else self._with(variant=variant.population())

    def _with(self, **fields: Any) -> "Norm":
        """Returns it with those of `fields` that a norm with running statistics has."""
        if self.is_stateless:
            return self
        layer: Any = self.layer
        known = {name: value for name, value in fields.items() if hasattr(layer, name)}
        return dataclasses.replace(self, layer=layer.clone(**known))


class Place(nn.Module):
    """The layer under study at one place, with its variables, and a record of what it gives out."""

    norm: Norm

    def setup(self) -> None:
        layer = self._layer()
        if layer is not None:
            self.layer = layer
            nn.share_scope(self, self.layer)

    def __call__(self, x: jax.Array) -> jax.Array:
        """Normalises `x`, or gives it back where there is no norm."""
        y = x if self.norm.layer is None else self.layer(x)
        self.sow("intermediates", OUT, y)
        return y

    def _layer(self) -> nn.Module | None:
        path = "/".join(self.path)
        norm = self.norm
        if path in norm.places:
            norm = norm.fold_in(norm.places.index(path) + 1)
        return None if norm.layer is None else norm.layer.clone()


class DynamicTanh(nn.Module):
    """Dynamic tanh: y = scale * tanh(alpha * x) + bias, with one learnt alpha and no statistics.

    Zhu et al. 2025 (arXiv:2503.10622), algorithm 1.

    >>> layer = DynamicTanh()
    >>> y, _ = layer.init_with_output(jax.random.key(0), jnp.float32([[1.0, -1.0]]))
    >>> bool(jnp.allclose(y, jnp.tanh(jnp.float32([[0.5, -0.5]]))))
    True
    """

    alpha_init: float = 0.5
    use_bias: bool = True

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Squashes `x`, features last."""
        alpha = self.param("alpha", nn.initializers.constant(self.alpha_init), (), jnp.float32)
        return _affine(self, jnp.tanh(alpha * x))


class WeightNorm(nn.Module):
    """Weight norm: y = scale * x / |w| + bias, |w| of the weights that made each unit of x.

    x is what a Dense, a Conv or another layer with a `kernel` has just given out; y is then what
    that layer gives with `flax.linen.WeightNorm` around it, and the bias in place of its own.

    Salimans & Kingma 2016 (arXiv:1602.07868), equation 2.
    """

    epsilon: float = 1e-12
    use_bias: bool = True

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Divides `x`, features last, by the norms of the weights that it was made with.

        Raises:
            ValueError: when no layer with a kernel has just given out `x`.
        """
        kernels = [kernel for y, kernel in _given_out.get() if y is x]
        if not kernels:
            raise ValueError(
                "WeightNorm needs what a layer with a kernel (Dense, Conv) gives out, as it comes."
            )
        squares = jnp.sum(jnp.square(kernels[-1]), axis=range(kernels[-1].ndim - 1))
        return _affine(self, x * _row(jax.lax.rsqrt(squares + self.epsilon), x))


@contextmanager
def weights_known() -> Iterator[None]:
    """Lets norms know, within it, which kernel their input was made with."""
    token = _given_out.set([])
    try:
        with nn.intercept_methods(_note_kernel):
            yield
    finally:
        _given_out.reset(token)


_given_out: ContextVar[list[tuple[Any, Any]]] = ContextVar("_given_out")


def _note_kernel(call: Any, arguments: Any, options: Any, context: Any) -> Any:
    y = call(*arguments, **options)
    module = context.module
    if context.method_name == "__call__" and module.has_variable("params", "kernel"):
        kernel = module.get_variable("params", "kernel")
        _given_out.get().append((y, kernel.T if getattr(module, "units_first", False) else kernel))
    return y


def is_variant(value: Any) -> bool:
    """Tells whether `value` is a variant of batch norm, and not a class of them."""
    return isinstance(value, Variant) and not isinstance(value, type)


def is_random(value: Any) -> bool:
    """Tells whether a key of `jax.random` is part of `value`."""
    return any(map(_is_key, jax.tree.leaves(value)))


def fold_in(norm: Any, number: jax.Array | int) -> Any:
    """Returns `norm` with `number` folded into its random keys, if it has any."""
    return jax.tree.map(
        lambda leaf: jax.random.fold_in(leaf, number) if _is_key(leaf) else leaf, norm
    )


def _is_key(leaf: Any) -> bool:
    return isinstance(leaf, jax.Array) and jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key)


def _affine(module: Any, y: jax.Array) -> jax.Array:
    y = y * _row(module.param("scale", nn.initializers.ones, y.shape[-1:], jnp.float32), y)
    if module.use_bias:
        y = y + _row(module.param("bias", nn.initializers.zeros, y.shape[-1:], jnp.float32), y)
    return y


def _row(vector: jax.Array, like: jax.Array) -> jax.Array:
    return jnp.expand_dims(vector, range(like.ndim - 1))
