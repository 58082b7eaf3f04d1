"""Averages the weights of a run, and compares three choices of running statistics for them."""

import jax
import jax.numpy as jnp
import optax
from sklearn.datasets import load_digits

import jbn

SEEDS, EPOCHS, BATCH, TRAIN, RATE, DECAY = 20, 20, 50, 1400, 2.0, 0.98
IMAGES, LABELS = map(jnp.asarray, load_digits(return_X_y=True))


def forward(params, stats, rows, momentum=None):
    """Loss and moved statistics of a training step; without a momentum, of inference."""
    x, moved = IMAGES[rows] / 16, []
    for kernel, affine, old in zip(params["kernels"], params["norms"], stats):
        if momentum is None:
            x = jbn.normalize(x @ kernel, *old, *affine)
        else:
            x, old = jbn.batch_norm(x @ kernel, affine, old, momentum=momentum)
        x, moved = jax.nn.relu(x), [*moved, old]
    logits = x @ params["kernels"][-1]
    return optax.softmax_cross_entropy_with_integer_labels(logits, LABELS[rows]).mean(), moved


def step(state, batch):
    ((params, stats), averages), (rows, weights) = state, batch
    grads, stats = jax.grad(forward, has_aux=True)(params, stats, rows, 0.9)
    new = jax.tree.map(lambda p, g: p - RATE * g, params, grads), stats
    return (new, [optax.incremental_update(new, *pair) for pair in zip(averages, weights)]), None


def losses(key):
    """Test losses of the last weights and of two averages, each with three sets of statistics."""
    rows = [jax.random.permutation(k, TRAIN) for k in jax.random.split(key, EPOCHS)]
    rows, shapes = jnp.stack(rows).reshape(-1, BATCH), [(64, 64), (64, 64), (64, 10)]
    share = 1 / jnp.maximum(1, jnp.arange(len(rows)) - len(rows) // 2)  # mean of the second half
    weights = jnp.full_like(share, 1 - DECAY), share
    kernels = list(map(jax.nn.initializers.he_normal(), jax.random.split(key, 3), shapes))
    affine, stats = jbn.init(64)
    start = {"kernels": kernels, "norms": [affine] * 2}, [stats] * 2
    (last, (ema, swa)), _ = jax.lax.scan(step, (start, [start] * 2), (rows, weights))
    found = {}
    for name, (params, stats) in {"last": last, "EMA": ema, "SWA": swa}.items():
        _, recalibrated = forward(params, stats, slice(TRAIN), momentum=0.0)
        for how, chosen in ("copied", last[1]), ("averaged", stats), ("recalibrated", recalibrated):
            found[name, how] = forward(params, chosen, slice(TRAIN, None))[0]
    return found


def main():
    found = jax.jit(jax.vmap(losses))(jax.random.split(jax.random.key(0), SEEDS))
    for (name, how), loss in found.items():
        print(f"{name:4} {how:12} {loss.mean():.4f} +- {jnp.std(loss, ddof=1) / SEEDS**0.5:.4f}")


if __name__ == "__main__":
    main()
