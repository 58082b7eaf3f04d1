"""Fine-tunes a PyTorch checkpoint in Flax, its batch norm frozen: statistics and affine map."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax.training.train_state import TrainState
from sklearn.datasets import load_digits

from jbn.convert import model_from_torch
from jbn.linen import BatchNorm

IMAGES, LABELS = map(jnp.asarray, load_digits(return_X_y=True))
TRAIN = 1400
# The flag belongs to the layer here, not to the call: it reads its statistics in training too.
NETWORK = nn.Sequential([nn.Dense(128), BatchNorm(use_running_average=True), nn.relu, nn.Dense(10)])


def load_state_dict():
    """For `torch.load`, of Linear(64, 128), BatchNorm1d(128), ReLU() and Linear(128, 10)."""
    rng = np.random.default_rng(0)
    norm = {f"1.{name}": 128 for name in ("weight", "bias", "running_mean", "running_var")}
    linear = {"0.weight": (128, 64), "0.bias": 128, "3.weight": (10, 128), "3.bias": 10}
    state = {name: rng.uniform(0.5, 2, size) for name, size in norm.items()}
    state |= {name: rng.normal(size=shape) / 11 for name, shape in linear.items()}
    return {name: array.astype(np.float32) for name, array in state.items()}


def from_state_dict(state):
    variables = jax.eval_shape(NETWORK.init, jax.random.key(0), IMAGES)
    variables, _ = model_from_torch(state, into=variables, rename="layers_{}".format)
    return variables["params"], variables["batch_stats"]


def main():
    params, batch_stats = from_state_dict(load_state_dict())
    freeze = optax.masked(optax.set_to_zero(), {name: name == "layers_1" for name in params})
    optimizer = optax.chain(optax.adamw(1e-3), freeze)  # last: weight decay is an update too

    def step(_, state):
        def loss(params):
            logits = state.apply_fn({"params": params, "batch_stats": batch_stats}, IMAGES[:TRAIN])
            return optax.softmax_cross_entropy_with_integer_labels(logits, LABELS[:TRAIN]).mean()

        return state.apply_gradients(grads=jax.grad(loss)(state.params))

    state = TrainState.create(apply_fn=NETWORK.apply, params=params, tx=optimizer)
    state = jax.lax.fori_loop(0, 200, step, state)
    logits = state.apply_fn({"params": state.params, "batch_stats": batch_stats}, IMAGES[TRAIN:])
    print(f"test accuracy {jnp.mean(logits.argmax(-1) == LABELS[TRAIN:]):.3f}")
    return params, state.params


if __name__ == "__main__":
    main()
