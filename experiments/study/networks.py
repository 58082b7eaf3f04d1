"""Networks of a study: a multilayer perceptron, or any function `norm -> flax.linen.Module`."""

import inspect
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.nn.initializers import Initializer

from experiments.study.norms import Norm
from experiments.study.values import check, positive, tuple_of, whole

ACTIVATIONS: dict[str, Callable[[jax.Array], jax.Array]] = {
    "sigmoid": jax.nn.sigmoid,
    "tanh": jax.nn.tanh,
    "relu": jax.nn.relu,
    "gelu": jax.nn.gelu,
    "elu": jax.nn.elu,
    "silu": jax.nn.silu,
}


@dataclass(frozen=True)
class MLP:
    """Dense, norm, activation for each hidden layer, then a Dense layer.

    Layers are called `hidden_1`, `hidden_2`, .. and `output`, norms `norm_1`, `norm_2`, .. A norm
    with a bias of its own takes the place of the hidden layer's.

    Attributes:
      widths: units of each hidden layer.
      activation: "sigmoid", "tanh", "relu", "gelu", "elu", "silu", or a function.
      init_std: standard deviation of the Gaussian initial kernels; None for He's (relu, gelu, elu,
        silu) or LeCun's.

    Raises:
        ConfigError: for a field of the wrong type or out of range.
    """

    widths: tuple[int, ...]
    activation: str | Callable[[jax.Array], jax.Array]
    init_std: float | None = None

    def __post_init__(self) -> None:
        check(self, "widths", tuple_of(whole(1)), "a tuple of whole numbers from 1")
        check(
            self,
            "activation",
            lambda a: a in ACTIVATIONS if isinstance(a, str) else callable(a),
            f"one of {tuple(ACTIVATIONS)}, or a function",
        )
        if not isinstance(self.init_std, jax.Array):
            check(
                self,
                "init_std",
                lambda std: std is None or positive(std),
                "a positive number, or None",
            )

    def __call__(self, norm: Norm, outputs: int) -> nn.Module:
        """Returns the network with `norm` before each hidden activation."""
        activation: Any = self.activation
        if isinstance(activation, str):
            activation = ACTIVATIONS[activation]
        return _MLP(self.widths, activation, self._kernel_init(), outputs, norm)

    def _kernel_init(self) -> Initializer:
        if self.init_std is not None:
            return jax.nn.initializers.normal(self.init_std)
        if self.activation in ("sigmoid", "tanh"):
            return jax.nn.initializers.lecun_normal()
        return jax.nn.initializers.he_normal()


class Dense(nn.Module):
    """`flax.linen.Dense`, but that `kernel` is `(units, inputs)`.

    On a CPU XLA takes two thirds of the time for the gradient of a kernel that lies so.
    """

    units: int
    kernel_init: Initializer
    use_bias: bool = True
    weights: Callable[[jax.Array], jax.Array] = lambda kernel: kernel
    """(kernel `(inputs, units)`) -> the one that is used in its place."""
    units_first = True

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Returns `x @ kernel.T + bias` for `(examples, inputs)`."""
        shape = (x.shape[-1], self.units)
        kernel = self.param("kernel", lambda key: self.kernel_init(key, shape, jnp.float32).T)
        y = x @ self.weights(kernel.T)
        if self.use_bias:
            y = y + self.param("bias", nn.initializers.zeros, (self.units,), jnp.float32)[None]
        return y


class _MLP(nn.Module):
    widths: tuple[int, ...]
    activation: Callable[[jax.Array], jax.Array]
    kernel_init: Initializer
    outputs: int
    norm: Norm

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        x = x.reshape(x.shape[0], -1)
        for i, width in enumerate(self.widths, start=1):
            bias = not self.norm.has_bias
            z = Dense(width, self.kernel_init, use_bias=bias, name=f"hidden_{i}")(x)
            x = self.activation(self.norm(f"norm_{i}")(z))
        return Dense(self.outputs, self.kernel_init, name="output")(x)


def takes(function: Callable[..., Any], argument: str) -> bool:
    """Tells whether `function` has an argument of that name."""
    try:
        return argument in inspect.signature(function).parameters
    except (TypeError, ValueError):  # of a builtin
        return False
