"""A multilayer perceptron that hands back what each activation is given: for claims of papers."""

from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import optax
from jax.nn.initializers import Initializer

from experiments.papers.tools.in_weights import InWeights
from experiments.study.networks import Dense
from experiments.study.norms import fold_in, is_variant
from jbn.linen import BatchNorm

NUM_CLASSES = 10


class MLP(nn.Module):
    """Dense, norm, activation for each hidden layer, then a Dense layer of class scores.

    Layers are called `hidden_1`, `hidden_2`, .. and `output`, norms `norm_1`, .. A norm with a bias
    of its own takes the place of the hidden layer's.
    """

    widths: tuple[int, ...]
    activation: Callable[[jax.Array], jax.Array]
    kernel_init: Initializer
    norm: Any = None
    """A variant of batch norm, a class of Flax modules, an `InWeights`, or None."""
    momentum: float = 0.99
    epsilon: float = 1e-5
    """Of any norm that has one."""
    axis_name: str | None = None

    @nn.compact
    def __call__(
        self, x: jax.Array, *, use_running_average: bool, momentum: float | None = None
    ) -> tuple[jax.Array, tuple[jax.Array, ...]]:
        """Class scores, and the inputs of each hidden activation, one column per unit.

        `momentum` takes the place of the field for this call; 0 makes the running statistics
        those of `x`.
        """
        inputs = []
        for i, width in enumerate(self.widths, start=1):
            norm, options = self._layer(i, use_running_average, x)
            z = Dense(width, **options, name=f"hidden_{i}")(x)
            z = apply_norm(norm, z, momentum)
            inputs.append(z)
            x = self.activation(z)
        scores = Dense(NUM_CLASSES, self.kernel_init, name="output")(x)
        return scores, tuple(inputs)

    def _layer(self, i: int, use_running_average: bool, x: jax.Array) -> tuple[Any, dict[str, Any]]:
        """What comes after hidden layer `i`, and that layer's fields; `x` is its inputs."""
        given = self.norm
        if not isinstance(given, InWeights):
            norm = self._norm(i, use_running_average)
            has_bias = getattr(norm, "use_bias", False)
            return norm, {"kernel_init": self.kernel_init, "use_bias": not has_bias}

        def change(kernel: jax.Array) -> jax.Array:
            return given.change(kernel, x, self.activation)

        if given.at_start:
            return None, {"kernel_init": lambda *drawn: change(self.kernel_init(*drawn))}
        options = {"kernel_init": self.kernel_init, "use_bias": False, "weights": change}
        return ScaleAndBias(name=f"norm_{i}"), options

    def _norm(self, i: int, use_running_average: bool) -> Any:
        if self.norm is None:
            return None
        if not is_variant(self.norm):
            made = self.norm(parent=None)
            epsilon = {"epsilon": self.epsilon} if hasattr(made, "epsilon") else {}
            return made.clone(parent=self, name=f"norm_{i}", **epsilon)
        return BatchNorm(
            use_running_average,
            momentum=self.momentum,
            epsilon=self.epsilon,
            axis_name=self.axis_name,
            variant=fold_in(self.norm, i),
            name=f"norm_{i}",
        )


class ScaleAndBias(nn.Module):
    """What a norm learns, without the norm."""

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Scales `x` by unit, features last, and adds a bias."""
        row = (1,) * (x.ndim - 1) + x.shape[-1:]
        scale = self.param("scale", nn.initializers.ones, row[-1:], jnp.float32)
        bias = self.param("bias", nn.initializers.zeros, row[-1:], jnp.float32)
        return x * scale.reshape(row) + bias.reshape(row)


def apply_norm(norm: Any, x: jax.Array, momentum: float | None) -> jax.Array:
    """Calls a norm of `MLP`, if there is one."""
    if norm is None:
        return x
    return norm(x, momentum=momentum) if isinstance(norm, BatchNorm) else norm(x)


def in_training(
    model: MLP, params: Any, batch_stats: Any, x: jax.Array, momentum: float | None = None
) -> tuple[jax.Array, tuple[jax.Array, ...], Any]:
    """Scores and the activations' inputs with the batch's own statistics.

    With them come the running statistics as they then are.
    """
    (scores, inputs), updated = model.apply(
        {"params": params, "batch_stats": batch_stats},
        x,
        use_running_average=False,
        momentum=momentum,
        mutable=["batch_stats"],
    )
    return scores, inputs, updated.get("batch_stats", {})


def cross_entropy(scores: jax.Array, labels: Any) -> jax.Array:
    """Mean over the examples."""
    return jnp.mean(optax.softmax_cross_entropy_with_integer_labels(scores, labels))
