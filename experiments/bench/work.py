"""Work that every trainer of a benchmark does: network, data, batches, and how often it looks."""

from collections.abc import Callable, Iterator
from typing import NamedTuple

import flax.linen as nn
import jax
import numpy as np

from experiments.study.data import Data

FEATURES = (16, 32)


class Work(NamedTuple):
    """The same network and data for everyone; by default 784-100-100-100-10, batch norm, SGD."""

    steps: int
    runs: int
    batch_size: int = 60
    widths: tuple[int, ...] = (100, 100, 100)
    """Of the hidden layers; empty for two convolutions of FEATURES, the second with strides."""
    side: int = 28
    """Of an image, in pixels."""
    examples: int = 60_000
    test_examples: int = 10_000
    evaluate_every: int = 1000
    """An epoch, as loops usually do."""

    @property
    def is_cnn(self) -> bool:
        """Whether the network is convolutional."""
        return not self.widths

    @property
    def network(self) -> str:
        """Returns the network in words."""
        if self.is_cnn:
            sizes = f"{self.side}x{self.side} images, 3x3 convolutions of {FEATURES}, relu"
        else:
            sizes = f"{'-'.join(map(str, (self.side**2, *self.widths, 10)))}, sigmoid"
        return f"{sizes}, batch norm, batch {self.batch_size}"


def cnn(steps: int, runs: int) -> Work:
    """Returns the work of `configs/own/cnn.py`: a small network on images of the digits' size."""
    return Work(steps, runs, 64, (), 8, examples=1437, test_examples=360, evaluate_every=100)


class CNN(nn.Module):
    """Convolution, norm, relu, twice; the mean over positions; a Dense layer.

    Attributes:
      norm: makes the layer of a name that normalises.
      outputs: how many there are.
    """

    norm: Callable[[str], Callable[[jax.Array], jax.Array]]
    outputs: int = 10

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Returns class scores of `(N, side, side, 1)`."""
        for i, features in enumerate(FEATURES, start=1):
            x = nn.Conv(features, (3, 3), strides=i, use_bias=False)(x)
            x = nn.relu(self.norm(f"norm_{i}")(x))
        return nn.Dense(self.outputs)(x.mean((1, 2)))


def data_of(work: Work) -> Data:
    """Returns noise of the images' shape: how fast it is learnt does not matter here."""
    rng = np.random.default_rng(0)

    def images(examples: int) -> np.ndarray:
        return rng.integers(0, 256, (examples, work.side**2), np.uint8)

    def labels(examples: int) -> np.ndarray:
        return rng.integers(0, 10, examples, np.int32)

    n, m = work.examples, work.test_examples
    return Data(images(n), labels(n), images(m), labels(m), brightest=255.0)


def scaled(images: np.ndarray) -> np.ndarray:
    """Returns bytes as numbers from 0 to 1."""
    return images.astype(np.float32) / 255.0


def batches_of(work: Work) -> Iterator[np.ndarray]:
    """Yields rows of one batch after the other, epoch after epoch."""
    rng = np.random.default_rng(0)
    while True:
        order = rng.permutation(work.examples)
        for start in range(0, work.examples - work.batch_size + 1, work.batch_size):
            yield order[start : start + work.batch_size]
