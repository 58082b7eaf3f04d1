"""The networks that studies train: a multilayer perceptron that takes its norm as a value."""

from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import optax
from jax.nn.initializers import Initializer

from experiments.study.config import Study
from jbn import Variant
from jbn.linen import BatchNorm

NUM_CLASSES = 10

_ACTIVATIONS: dict[str, Callable[[jax.Array], jax.Array]] = {
    "sigmoid": jax.nn.sigmoid,
    "tanh": jax.nn.tanh,
    "relu": jax.nn.relu,
    "gelu": jax.nn.gelu,
}


class Dense(nn.Module):
    """`flax.linen.Dense`, but that `kernel` is `(units, inputs)`.

    On a CPU XLA takes two thirds of the time for the gradient of a kernel that lies so.
    """

    units: int
    kernel_init: Initializer
    use_bias: bool = True

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """`x @ kernel.T + bias` for `(examples, inputs)`."""
        shape = (x.shape[-1], self.units)
        kernel = self.param("kernel", lambda key: self.kernel_init(key, shape, jnp.float32).T)
        y = x @ kernel.T
        if self.use_bias:
            y = y + self.param("bias", nn.initializers.zeros, (self.units,), jnp.float32)[None]
        return y


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


def make_model(
    study: Study, norm: Variant | None, axis_name: str | None = None, **swept: Any
) -> MLP:
    """The network of `study` with `norm` before each hidden activation.

    With an `axis_name` its norms see the batch of all devices along that axis. Values that are
    `swept` take the place of the study's, which has several, and may be traced.
    """
    fields = vars(study) | swept
    return MLP(
        study.widths,
        _ACTIVATIONS[study.activation],
        _kernel_init(study.activation, fields["init_std"]),
        norm,
        momentum=fields["momentum"],
        epsilon=fields["epsilon"],
        axis_name=axis_name,
    )


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


def fold_in(norm: Variant, number: jax.Array | int) -> Variant:
    """`norm` with `number` folded into its random keys, if it has any."""

    def fold(leaf: Any) -> Any:
        is_key = isinstance(leaf, jax.Array) and jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key)
        return jax.random.fold_in(leaf, number) if is_key else leaf

    return jax.tree.map(fold, norm)


def layer_names(study: Study) -> list[str]:
    """The layers with a kernel, from the input up."""
    return [f"hidden_{i}" for i in range(1, len(study.widths) + 1)] + ["output"]


def _kernel_init(activation: str, std: Any) -> Initializer:
    if std is not None:
        return jax.nn.initializers.normal(std)
    if activation in ("relu", "gelu"):
        return jax.nn.initializers.he_normal()
    return jax.nn.initializers.lecun_normal()
