"""`jbn.nnx.recalibrate` sees the layers inside NNX's lifted transformations."""

import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

import jbn.nnx

BATCHES = [3 + np.random.default_rng(n).normal(size=(n, 4)).astype(np.float32) for n in (8, 5)]


class Block(nnx.Module):
    def __init__(self, rngs):
        self.dense = nnx.Linear(4, 4, rngs=rngs)
        self.norm = jbn.nnx.BatchNorm(4, rngs=rngs)

    def __call__(self, x):
        return self.norm(self.dense(x))


class Lifted(nnx.Module):
    """Three blocks, or one under remat."""

    def __init__(self, how, rngs):
        self.how = how
        many = nnx.split_rngs(splits=3)(nnx.vmap(Block, in_axes=(0,), out_axes=0))
        self.block = Block(rngs) if how == "remat" else many(rngs)

    def __call__(self, x):
        def run(block, x):
            return block(x)

        lifted = {
            "remat": nnx.remat(run),
            "scan": nnx.scan(run, in_axes=(0, nnx.Carry), out_axes=nnx.Carry),
            "vmap": nnx.vmap(run, in_axes=(0, None), out_axes=0),
        }
        return lifted[self.how](self.block, x)


@pytest.mark.parametrize("how", ["remat", "scan", "vmap"])
def test_layers_inside_lifted_transformations(how):
    model = Lifted(how, nnx.Rngs(0))
    model.train()
    jbn.nnx.recalibrate(model, BATCHES)
    mean = model.block.norm.mean[...]
    kernel, bias = model.block.dense.kernel[...], model.block.dense.bias[...]
    if how == "remat":
        mean, kernel, bias = mean[None], kernel[None], bias[None]
    # The scanned blocks after the first see normalised inputs; the first sees the data.
    for i in range(1 if how == "scan" else len(mean)):
        inputs = jnp.concatenate([batch @ kernel[i] + bias[i][None] for batch in BATCHES])
        np.testing.assert_allclose(mean[i], inputs.mean(0), rtol=1e-5)
