"""Trains with a variant of one's own: L1 batch norm (Hoffer et al. 2018, arXiv:1803.01814)."""

import math
from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np
import optax
from sklearn.datasets import load_digits

import jbn

BATCH, STEPS, TRAIN, RATE = 64, 300, 1400, 0.3


@dataclass(frozen=True)
class L1:
    def __call__(self, batch: jbn.Batch, affine, stats, *, epsilon):
        moments = batch.measure().moments()
        # Of normal numbers this is the standard deviation.
        deviation = math.sqrt(math.pi / 2) * batch.mean(jnp.abs(batch.centre(moments)))
        moments = moments._replace(var=jnp.square(deviation))
        return batch.normalize(moments, affine, epsilon), moments

    def population(self) -> jbn.Variant:
        return self


@jax.jit
def step(params, stats, x, y):
    def loss(params):
        h, moved = jbn.batch_norm(x @ params["low"], params["affine"], stats, variant=L1())
        logits = jax.nn.relu(h) @ params["high"]
        return optax.softmax_cross_entropy_with_integer_labels(logits, y).mean(), moved

    grads, stats = jax.grad(loss, has_aux=True)(params)
    return jax.tree.map(lambda p, g: p - RATE * g, params, grads), stats


def main():
    images, labels = map(np.asarray, load_digits(return_X_y=True))
    images, rng = images.astype(np.float32) / 16, np.random.default_rng(0)
    low, high = (rng.normal(0, 0.125, (64, n)).astype(np.float32) for n in (64, 10))
    affine, stats = jbn.init(64)
    params = {"low": low, "affine": affine, "high": high}
    for _ in range(STEPS):
        rows = rng.integers(0, TRAIN, BATCH)
        params, stats = step(params, stats, images[rows], labels[rows])
    h = jbn.normalize(images[TRAIN:] @ params["low"], *stats, *params["affine"])
    found = (jax.nn.relu(h) @ params["high"]).argmax(-1)
    print(f"test accuracy {np.mean(found == labels[TRAIN:]):.3f}")


if __name__ == "__main__":
    main()
