"""Trains a network with batch norm from functions alone: state goes in, state comes out."""

import jax
import jax.numpy as jnp
import optax
from sklearn.datasets import load_digits

import jbn

BATCH, EPOCHS, TRAIN = 50, 20, 1400
OPTIMIZER = optax.adam(1e-2)


def train_logits(params, stats, x, momentum):
    """Normalises with the batch, and returns the moved running statistics too."""
    hidden, stats = jbn.batch_norm(x @ params["in"], params["norm"], stats, momentum=momentum)
    return jax.nn.relu(hidden) @ params["out"], stats


def logits(params, stats, x):
    """Normalises with the running statistics: inference."""
    hidden = jbn.normalize(x @ params["in"], *stats, *params["norm"])
    return jax.nn.relu(hidden) @ params["out"]


def step(state, batch):
    (params, stats, opt_state, count), (x, y) = state, batch

    def loss(params):
        # The running average is exact from the first step, and forgets from the tenth on.
        scores, moved = train_logits(params, stats, x, jbn.warmup_momentum(count, 0.9))
        return optax.softmax_cross_entropy_with_integer_labels(scores, y).mean(), moved

    grads, stats = jax.grad(loss, has_aux=True)(params)
    updates, opt_state = OPTIMIZER.update(grads, opt_state)
    return (optax.apply_updates(params, updates), stats, opt_state, count + 1), None


def main():
    images, labels = map(jnp.asarray, load_digits(return_X_y=True))
    images = images.astype(jnp.float32) / 16
    keys = jax.random.split(jax.random.key(0), 2)
    kernels = [jax.nn.initializers.he_normal()(keys[0], shape) for shape in ((64, 64), (64, 10))]
    affine, stats = jbn.init(64)
    params = {"in": kernels[0], "norm": affine, "out": kernels[1]}
    state = (params, stats, OPTIMIZER.init(params), 0)
    for key in jax.random.split(keys[1], EPOCHS):
        rows = jax.random.permutation(key, TRAIN).reshape(-1, BATCH)
        state, _ = jax.lax.scan(step, state, (images[rows], labels[rows]))
    correct = jnp.argmax(logits(*state[:2], images[TRAIN:]), axis=-1) == labels[TRAIN:]
    print(f"test accuracy {correct.mean():.3f}")


if __name__ == "__main__":
    main()
