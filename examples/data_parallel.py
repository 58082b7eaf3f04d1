"""Spreads every batch over all devices and normalises it as one, by `shard_map` and by `jit`."""

from functools import partial

import flax.linen as nn
import jax
import numpy as np
import optax
from sklearn.datasets import load_digits

from jbn.linen import BatchNorm

MESH = jax.sharding.Mesh(np.array(jax.devices()), ("data",))
BATCH, STEPS, TRAIN, RATE = 16 * MESH.size, 300, 1400, 0.3


class Network(nn.Module):
    axis_name: str | None = None

    @nn.compact
    def __call__(self, x, train):
        x = nn.Dense(64, use_bias=False)(x)
        x = BatchNorm(use_running_average=not train, momentum=0.9, axis_name=self.axis_name)(x)
        return nn.Dense(10)(nn.relu(x))


def step(axis_name, variables, x, y):
    def loss(params):
        given = {**variables, "params": params}
        logits, moved = Network(axis_name).apply(given, x, True, mutable=["batch_stats"])
        mean = optax.softmax_cross_entropy_with_integer_labels(logits, y).mean()
        return jax.lax.pmean(mean, axis_name) if axis_name else mean, moved

    grads, moved = jax.grad(loss, has_aux=True)(variables["params"])
    return {"params": jax.tree.map(lambda p, g: p - RATE * g, variables["params"], grads), **moved}


def main():
    images, labels = map(np.asarray, load_digits(return_X_y=True))
    images, whole, split = images.astype(np.float32) / 16, jax.P(), jax.P("data")
    # In shard_map each device sees its rows, and the axis name says who has the others.
    specs = {"in_specs": (whole, split, split), "out_specs": whole}
    parts = jax.shard_map(partial(step, "data"), mesh=MESH, **specs)
    # Under jit the program is written for the whole batch, and needs no axis name.
    for name, train in {"shard_map": parts, "jit": partial(step, None)}.items():
        train, rng = jax.jit(train), np.random.default_rng(0)
        variables = Network().init(jax.random.key(0), images, False)
        for rows in rng.choice(TRAIN, (STEPS, BATCH)):
            batch = jax.device_put((images[rows], labels[rows]), jax.NamedSharding(MESH, split))
            # Forced host devices that share few cores may wait for each other for ever when steps
            # overlap; accelerators do not need this.
            variables = jax.block_until_ready(train(variables, *batch))
        logits = np.asarray(Network().apply(variables, images[TRAIN:], False))
        accuracy = np.mean(logits.argmax(-1) == labels[TRAIN:])
        print(f"{name} on {MESH.size} devices: test accuracy {accuracy:.3f}")


if __name__ == "__main__":
    main()
