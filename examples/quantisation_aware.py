"""Trains for weights of 2 bits: folds batch norm and rounds the kernels in every step."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
from sklearn.datasets import load_digits

import jbn

BATCH, STEPS, TRAIN, BITS = 64, 400, 1400, 2
OPTIMIZER = optax.adam(1e-2)


def rounded(kernel):
    """`kernel` in 2**BITS - 1 levels per output; the gradient passes straight through."""
    unit = jnp.max(jnp.abs(kernel), axis=0, keepdims=True) / (2 ** (BITS - 1) - 1)
    return kernel + jax.lax.stop_gradient(jnp.round(kernel / unit) * unit - kernel)


def logits(params, x, batch, quantise):
    """The network as it is deployed: the norm folded, by the statistics of `batch`."""
    mean, var, *_ = jbn.batch_moments(batch @ params["low"])
    affine = jbn.as_affine(params["affine"], jbn.RunningStats(mean, var))
    kernel, bias = jbn.fold(params["low"], None, affine)
    return jax.nn.relu(x @ quantise(kernel) + bias) @ quantise(params["high"])


def train(images, labels, quantise):
    @jax.jit
    def step(params, state, x, y):
        def loss(params):
            scores = logits(params, x, x, quantise)
            return optax.softmax_cross_entropy_with_integer_labels(scores, y).mean()

        updates, state = OPTIMIZER.update(jax.grad(loss)(params), state)
        return optax.apply_updates(params, updates), state

    rng = np.random.default_rng(0)
    low, high = (rng.normal(0, 0.125, (64, n)).astype(np.float32) for n in (64, 10))
    params = {"low": low, "affine": jbn.init(64)[0], "high": high}
    state = OPTIMIZER.init(params)
    for _ in range(STEPS):
        rows = rng.integers(0, TRAIN, BATCH)
        params, state = step(params, state, images[rows], labels[rows])
    return params


def main():
    images, labels = map(np.asarray, load_digits(return_X_y=True))
    images = images.astype(np.float32) / 16
    for when, quantise in (("after training", lambda kernel: kernel), ("in every step", rounded)):
        params = train(images, labels, quantise)
        found = logits(params, images[TRAIN:], images[:TRAIN], rounded).argmax(-1)
        print(f"rounded {when}: test accuracy {np.mean(found == labels[TRAIN:]):.3f}")


if __name__ == "__main__":
    main()
