"""A multilayer perceptron that hands back what each activation is given: for claims of papers."""

from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import optax
from jax.nn.initializers import Initializer

from experiments.study.networks import Dense
from experiments.study.norms import fold_in
from jbn import Variant
from jbn.linen import BatchNorm

NUM_CLASSES = 10


class MLP(nn.Module):
    """Dense, norm, activation for each hidden layer, then a Dense layer of class scores.

    Layers are called `hidden_1`, `hidden_2`, .. and `output`. With a norm the hidden Dense layers
    have no bias: the norm subtracts it with the mean, and has its own.
    """

    widths: tuple[int, ...]
    activation: Callable[[jax.Array], jax.Array]
    kernel_init: Initializer
    norm: Variant | None = None
    momentum: float = 0.99
    epsilon: float = 1e-5
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
            z = Dense(width, self.kernel_init, use_bias=self.norm is None, name=f"hidden_{i}")(x)
            if self.norm is not None:
                norm = BatchNorm(
                    use_running_average,
                    momentum=self.momentum,
                    epsilon=self.epsilon,
                    axis_name=self.axis_name,
                    variant=fold_in(self.norm, i),
                    name=f"norm_{i}",
                )
                z = norm(z, momentum=momentum)
            inputs.append(z)
            x = self.activation(z)
        scores = Dense(NUM_CLASSES, self.kernel_init, name="output")(x)
        return scores, tuple(inputs)


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
