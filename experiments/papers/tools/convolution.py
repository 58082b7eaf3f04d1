"""A small convolutional network in the place of `tools.mlp.MLP`."""

import math
from collections.abc import Callable

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.nn.initializers import Initializer

from experiments.papers.tools.mlp import MLP, NUM_CLASSES, apply_norm
from experiments.study.networks import Dense

_SIDE = 3


class Conv(nn.Module):
    """A convolution of 3x3 with zero padding, as one matrix product.

    `flax.linen.Conv` computes the same; on a CPU XLA takes several times as long for its gradient.
    """

    channels: int
    kernel_init: Initializer
    stride: int = 1
    use_bias: bool = True
    weights: Callable[[jax.Array], jax.Array] = lambda kernel: kernel
    """(kernel) -> the one that is used in its place."""

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Convolves `(examples, height, width, channels)`."""
        patches = neighbourhoods(x)[:, :: self.stride, :: self.stride]
        shape = (patches.shape[-1], self.channels)
        y = patches @ self.weights(self.param("kernel", self.kernel_init, shape, jnp.float32))
        if self.use_bias:
            bias = self.param("bias", nn.initializers.zeros, shape[1:], jnp.float32)
            y = y + bias[None, None, None]
        return y


def neighbourhoods(x: jax.Array) -> jax.Array:
    """Puts the 3x3 pixels around each pixel side by side, row by row: `(n, h, w, 9 c)`."""
    _, height, width, _ = x.shape
    padded = jnp.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)))
    shifted = [padded[:, i : i + height, j : j + width] for i in range(_SIDE) for j in range(_SIDE)]
    return jnp.concatenate(shifted, axis=-1)


class CNN(MLP):
    """Conv, norm, activation for each of `widths` channels, the mean over pixels, a Dense layer.

    Square images come in flat. Where the channels change, after the first layer, pixels are halved
    both ways.
    """

    @nn.compact
    def __call__(
        self, x: jax.Array, *, use_running_average: bool, momentum: float | None = None
    ) -> tuple[jax.Array, tuple[jax.Array, ...]]:
        """Class scores, and the inputs of each hidden activation, as `MLP` does."""
        side = math.isqrt(x.shape[-1])
        x = x.reshape(-1, side, side, 1)
        inputs = []
        for i, channels in enumerate(self.widths, start=1):
            norm, options = self._layer(i, use_running_average, neighbourhoods(x))
            stride = 2 if x.shape[-1] not in (1, channels) else 1
            z = Conv(channels, stride=stride, **options, name=f"hidden_{i}")(x)
            z = apply_norm(norm, z, momentum)
            inputs.append(z)
            x = self.activation(z)
        scores = Dense(NUM_CLASSES, self.kernel_init, name="output")(jnp.mean(x, axis=(1, 2)))
        return scores, tuple(inputs)
