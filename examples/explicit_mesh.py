"""Trains an NNX model on a mesh as `jax.make_mesh` makes it, of Explicit axes."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx
from jax import P
from sklearn.datasets import load_digits

from jbn.nnx import BatchNorm

STEPS, TRAIN, RATE = 300, 1400, 0.3


class Network(nnx.Module):
    def __init__(self, rngs: nnx.Rngs):
        self.hidden = nnx.Linear(64, 64, use_bias=False, rngs=rngs)
        # Without an axis name: a batch sharded over the mesh is still one batch.
        self.norm = BatchNorm(64, momentum=0.9, rngs=rngs)
        self.out = nnx.Linear(64, 10, rngs=rngs)

    def __call__(self, x):
        return self.out(nnx.relu(self.norm(self.hidden(x))))


@nnx.jit
def step(model, optimizer, images, labels):
    def loss(model):
        return optax.softmax_cross_entropy(model(images), jax.nn.one_hot(labels, 10)).mean()

    optimizer.update(model, nnx.grad(loss)(model))


def main():
    images, labels = map(np.asarray, load_digits(return_X_y=True))
    images = images.astype(np.float32) / 16
    mesh = jax.make_mesh((jax.device_count(),), ("data",))
    with jax.set_mesh(mesh):
        model = Network(nnx.Rngs(0))
        optimizer = nnx.Optimizer(model, optax.sgd(RATE), wrt=nnx.Param)
        rng = np.random.default_rng(0)
        for rows in rng.choice(TRAIN, (STEPS, 16 * mesh.size)):
            step(model, optimizer, *jax.device_put((images[rows], labels[rows]), P("data")))
            # Forced host devices that share few cores may wait for each other for ever when steps
            # overlap; accelerators do not need this.
            jax.block_until_ready(nnx.state(model))
        model.eval()
        accuracy = jnp.mean(model(images[TRAIN:]).argmax(-1) == labels[TRAIN:])
    print(f"{mesh.axis_types} axes over {mesh.size} devices: test accuracy {accuracy:.3f}")


if __name__ == "__main__":
    main()
