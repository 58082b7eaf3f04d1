"""Trains a Linen `TrainState`, saves it half-way with Orbax, and resumes to the same last bit."""

import tempfile

import flax.linen as nn
import jax
import jax.numpy as jnp
import optax
import orbax.checkpoint as ocp
from flax.training import train_state
from sklearn.datasets import load_digits

from jbn.linen import BatchNorm

IMAGES, LABELS = map(jnp.asarray, load_digits(return_X_y=True))
TRAIN = 1400


class Network(nn.Module):
    @nn.compact
    def __call__(self, x, train):
        x = BatchNorm(not train, momentum=0.9)(nn.Dense(64, use_bias=False)(x / 16))
        return nn.Dense(10)(nn.relu(x))


class TrainState(train_state.TrainState):
    batch_stats: dict  # one more thing to keep


def step(_, state):
    rows = jax.random.choice(jax.random.key(state.step), TRAIN, (50,))

    def loss(params):
        given = {"params": params, "batch_stats": state.batch_stats}
        logits, moved = state.apply_fn(given, IMAGES[rows], True, mutable=["batch_stats"])
        return optax.softmax_cross_entropy_with_integer_labels(logits, LABELS[rows]).mean(), moved

    grads, moved = jax.grad(loss, has_aux=True)(state.params)
    return state.apply_gradients(grads=grads, **moved)


def main():
    variables = Network().init(jax.random.key(0), IMAGES, False)
    state = TrainState.create(apply_fn=Network().apply, tx=optax.adam(1e-2), **variables)
    half = jax.lax.fori_loop(0, 200, step, state)
    with tempfile.TemporaryDirectory() as folder, ocp.StandardCheckpointer() as checkpointer:
        checkpointer.save(f"{folder}/half", half)
        checkpointer.wait_until_finished()
        restored = checkpointer.restore(f"{folder}/half", half)
    done, resumed = (jax.lax.fori_loop(200, 400, step, start) for start in (half, restored))
    print("resumed to the same state", jax.tree.all(jax.tree.map(jnp.array_equal, resumed, done)))
    trained = {"params": resumed.params, "batch_stats": resumed.batch_stats}
    logits = resumed.apply_fn(trained, IMAGES[TRAIN:], False)
    print(f"test accuracy {jnp.mean(logits.argmax(-1) == LABELS[TRAIN:]):.3f}")


if __name__ == "__main__":
    main()
