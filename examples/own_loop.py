"""Writes what a plain NNX loop measured as a study, for the report of `experiments`."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx
from sklearn.datasets import load_digits

from experiments.runner.own import write_results
from jbn.nnx import BatchNorm

OUT, TRAIN, STEPS = "runs/own_loop", 1400, (0, 20, 50, 100)
NORMS, RATES, SEEDS = {"none": None, "batch": BatchNorm}, (0.1,), (0, 1)


class Network(nnx.Module):
    def __init__(self, norm, rngs):
        self.hidden = nnx.Linear(64, 32, rngs=rngs)
        self.norm = norm(32, momentum=0.9, rngs=rngs) if norm else lambda x: x
        self.out = nnx.Linear(32, 10, rngs=rngs)

    def __call__(self, x):
        return self.out(nnx.relu(self.norm(self.hidden(x))))


@nnx.jit
def train_step(network, optimizer, x, y):
    def loss(network):
        return optax.losses.softmax_cross_entropy_with_integer_labels(network(x), y).mean()

    optimizer.update(network, nnx.grad(loss)(network))


def train(norm, rate, seed, images, labels):
    network, right = Network(norm, nnx.Rngs(seed)), []
    optimizer = nnx.Optimizer(network, optax.sgd(rate, momentum=0.9), wrt=nnx.Param)
    for step, key in enumerate(jax.random.split(jax.random.key(seed), STEPS[-1] + 1)):
        if step in STEPS:
            network.eval()
            right.append(np.argmax(network(images[TRAIN:]), axis=-1) == labels[TRAIN:])
            network.train()
        rows = jax.random.choice(key, TRAIN, (32,))
        train_step(network, optimizer, images[rows], labels[rows])
    return right


def main():
    images, labels = map(jnp.asarray, load_digits(return_X_y=True))
    data = images.astype(jnp.float32) / 16, labels
    each = [[[train(n, r, s, *data) for s in SEEDS] for r in RATES] for n in NORMS.values()]
    right = np.array(each)  # along norm, rate, seed, step, example
    measures = {"test_accuracy": right.mean(-1), "test_example_score": right[..., -1, :]}
    axes = {"norms": [*NORMS], "learning_rates": RATES, "seeds": SEEDS, "steps": STEPS}
    write_results(OUT, name="My loop", claim="Batch norm helps.", measures=measures, **axes)


if __name__ == "__main__":
    main()
