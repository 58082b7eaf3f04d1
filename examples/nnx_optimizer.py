"""Trains an NNX model with `nnx.Optimizer`; its batch norms keep their own statistics."""

import jax
import jax.numpy as jnp
import optax
from flax import nnx
from sklearn.datasets import load_digits

from jbn.nnx import BatchNorm

BATCH, STEPS, TRAIN = 50, 400, 1400


class Network(nnx.Module):
    def __init__(self, rngs):
        self.hidden = nnx.Linear(64, 64, use_bias=False, rngs=rngs)
        self.norm = BatchNorm(64, momentum=0.9, rngs=rngs)
        self.out = nnx.Linear(64, 10, rngs=rngs)

    def __call__(self, x):
        return self.out(nnx.relu(self.norm(self.hidden(x))))


@nnx.jit  # not jax.jit, which would lose the moved statistics
def train_step(network, optimizer, x, y):
    def loss(network):
        return optax.losses.softmax_cross_entropy_with_integer_labels(network(x), y).mean()

    optimizer.update(network, nnx.grad(loss)(network))


@nnx.jit
def accuracy(network, x, y):
    return jnp.mean(jnp.argmax(network(x), axis=-1) == y)


def main():
    images, labels = map(jnp.asarray, load_digits(return_X_y=True))
    images = images.astype(jnp.float32) / 16
    network = Network(nnx.Rngs(0))
    optimizer = nnx.Optimizer(network, optax.adam(1e-2), wrt=nnx.Param)

    network.train()  # normalise with the batch, and move the running statistics
    for key in jax.random.split(jax.random.key(1), STEPS):
        rows = jax.random.choice(key, TRAIN, (BATCH,))
        train_step(network, optimizer, images[rows], labels[rows])

    network.eval()  # normalise with the running statistics
    print(f"test accuracy {accuracy(network, images[TRAIN:], labels[TRAIN:]):.3f}")


if __name__ == "__main__":
    main()
