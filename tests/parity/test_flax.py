"""Flax: its own layers' states, Linen and NNX, read, written and carried from one to the other."""

import chex
import flax.linen as nn
import jax
import numpy as np
from flax import nnx

import jbn
from jbn.convert import from_linen, from_nnx, to_linen, to_nnx


class Linen(nn.Module):
    @nn.compact
    def __call__(self, x, train):
        return nn.BatchNorm(not train, momentum=0.8, name="norm")(x)


class Nnx(nnx.Module):
    def __init__(self):
        self.layers = nnx.List([nnx.BatchNorm(5, momentum=0.8, rngs=nnx.Rngs(0))])

    def __call__(self, x):
        return self.layers[0](x)


def trained(batches, affine):
    net = Linen()
    variables = net.init(jax.random.key(0), batches[0], True)
    variables["params"]["norm"] = dict(zip(("scale", "bias"), affine))
    for x in batches[:-1]:
        variables |= net.apply(variables, x, True, mutable=["batch_stats"])[1]
    return net, variables


def test_inference_and_the_next_step_are_equal(batches, affine):
    net, variables = trained(batches, affine)
    x = batches[-1]
    gamma, stats = from_linen(variables)["norm"]
    y = net.apply(variables, x, False)
    np.testing.assert_allclose(jbn.normalize(x, *stats, *gamma), y, rtol=1e-6, atol=2e-6)
    y, after = net.apply(variables, x, True, mutable=["batch_stats"])
    ours, stats = jbn.batch_norm(x, gamma, stats, momentum=0.8)
    np.testing.assert_allclose(ours, y, rtol=1e-6, atol=1e-5)
    np.testing.assert_allclose(stats.mean, after["batch_stats"]["norm"]["mean"], rtol=2e-6)
    np.testing.assert_allclose(stats.var, after["batch_stats"]["norm"]["var"], rtol=5e-6)


def test_from_linen_to_nnx_and_back(batches, affine):
    net, variables = trained(batches, affine)
    model, x = Nnx(), batches[-1]
    nnx.update(model, to_nnx({"layers/0": from_linen(variables)["norm"]}))
    model.eval()
    np.testing.assert_array_equal(model(x), net.apply(variables, x, False))
    model.train()
    model(x)
    _, after = net.apply(variables, x, True, mutable=["batch_stats"])
    layers = from_nnx(nnx.state(model))
    assert list(layers) == ["layers/0"]
    back = to_linen({"norm": layers["layers/0"]})
    chex.assert_trees_all_close(back, {"params": variables["params"], **after}, rtol=1e-6)
    chex.assert_trees_all_equal(from_nnx(nnx.to_pure_dict(nnx.state(model))), layers)
