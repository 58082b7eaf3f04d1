"""Layers of one framework in the place of those of a whole model of another."""

from operator import itemgetter

import chex
import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

import jbn.linen
import jbn.nnx
from jbn import convert

X = jnp.ones((4, 3))


def layer(seed, features=3):
    keys = jax.random.split(jax.random.key(seed), 4)
    scale, bias, mean, var = (jax.random.uniform(key, (features,)) for key in keys)
    return jbn.Affine(scale, bias), jbn.RunningStats(mean, var)


class Block(nn.Module):
    @nn.compact
    def __call__(self, x):
        return jbn.linen.BatchNorm(True, name="bn1")(nn.Dense(3)(x))


class Model(nn.Module):
    @nn.compact
    def __call__(self, x):
        x = Block(name="block")(x)
        options = {"use_scale": False, "param_dtype": jnp.bfloat16}
        norm = jbn.linen.BatchNorm(use_running_average=True, name="BatchNorm_0", **options)
        return nn.Dense(2)(norm(x))


@pytest.fixture(scope="module")
def variables():
    return Model().init(jax.random.key(0), X)


def of_torch():
    (_, bias), stats = layer(1)
    return {"block.bn1": layer(0), "bn": (jbn.Affine(jnp.ones(3), bias), stats)}


NAMES = {"block.bn1": "block/bn1", "bn": "BatchNorm_0"}


def test_a_linen_model_keeps_all_else(variables):
    new = convert.to_linen(of_torch(), rename=NAMES, into=variables)
    chex.assert_trees_all_equal_shapes_and_dtypes(new, variables)
    chex.assert_trees_all_equal(
        new["params"]["block"]["Dense_0"], variables["params"]["block"]["Dense_0"]
    )
    (scale, _), (mean, _) = layer(0)
    np.testing.assert_array_equal(new["params"]["block"]["bn1"]["scale"], scale)
    np.testing.assert_array_equal(new["batch_stats"]["block"]["bn1"]["mean"], mean)
    assert new["params"]["BatchNorm_0"]["bias"].dtype == jnp.bfloat16
    assert "scale" not in new["params"]["BatchNorm_0"]
    chex.assert_trees_all_equal(variables, Model().init(jax.random.key(0), X))


def test_what_does_not_fit_is_named(variables):
    with pytest.raises(ValueError, match=r"no batch norm is called \['bn_1'\].*'block/bn1'"):
        convert.to_linen({"bn_1": layer(0)}, into=variables)
    with pytest.raises(ValueError, match=r"params/block/bn1/scale': \(\(5,\), \(3,\)\)"):
        convert.to_linen({"block/bn1": layer(0, 5)}, into=variables)
    with pytest.raises(ValueError, match="'BatchNorm_0' has a scale that is not 1, and what it is"):
        convert.to_linen({"BatchNorm_0": layer(0)}, into=variables)
    with pytest.raises(ValueError, match=r"rename has \['bn'\]"):
        convert.to_linen({"a": layer(0)}, rename={"bn": "b"})
    with pytest.raises(ValueError, match=r"gives \['x'\] to more than one"):
        convert.to_linen({"a": layer(0), "b": layer(1)}, rename=lambda path: "x")


def nnx_model():
    rngs = nnx.Rngs(0)
    norms = [jbn.nnx.BatchNorm(3, rngs=rngs) for _ in range(4)]
    return nnx.Dict(
        {
            "list": nnx.List([nnx.Linear(3, 3, rngs=rngs), norms[0]]),
            "dict": nnx.Dict({"7": norms[1], "a/b": norms[2]}),
            "flax": nnx.BatchNorm(3, rngs=rngs),
        }
    )


def test_a_model_of_nnx_knows_its_own_keys():
    model = nnx_model()
    paths = ["list/1", "dict/7", "dict/a/b", "flax"]
    layers = {path: layer(seed) for seed, path in enumerate(paths)}
    for given in (model, nnx.state(model), nnx.to_pure_dict(nnx.state(model))):
        new = convert.to_nnx(layers, into=given)
        chex.assert_trees_all_equal_shapes(new, nnx.to_pure_dict(nnx.state(model)))
    kernel = model["list"][0].kernel[...]
    nnx.update(model, new)
    np.testing.assert_array_equal(model["dict"]["a/b"].mean[...], layers["dict/a/b"][1].mean)
    np.testing.assert_array_equal(model["list"][0].kernel[...], kernel)
    for given in (model, nnx.state(model)):
        chex.assert_trees_all_equal(dict(sorted(convert.from_nnx(given).items())), layers)


def test_names_of_tf_keras_end_in_a_number():
    (scale, bias), (mean, var) = right = layer(0)
    named = {"gamma": scale, "beta": bias, "moving_mean": mean, "moving_variance": var}
    weights = {f"net/bn/{name}:0": np.asarray(value) for name, value in named.items()}
    chex.assert_trees_all_equal(convert.from_keras(weights)["net/bn"], right)
    target = {f"net/bn/{name}": np.zeros(3, np.float32) for name in named} | {"net/k": np.ones(2)}
    new = convert.to_keras({"net/bn": right}, into=target)
    np.testing.assert_array_equal(new["net/bn/moving_mean"], mean)
    np.testing.assert_array_equal(new["net/k"], 1)


class Ensemble(nn.Module):
    """Two members, each of three layers: axes (2, 3, C)."""

    @nn.compact
    def __call__(self, x):
        lifted = {"params": 0, "batch_stats": 0}
        options = {"variable_axes": lifted, "split_rngs": {"params": True}}
        layers = nn.scan(Layer, length=3, **options)
        return nn.vmap(layers, axis_size=2, in_axes=None, **options)(name="net")(x, None)[0]


class Layer(nn.Module):
    @nn.compact
    def __call__(self, x, _):
        return jbn.linen.BatchNorm(True, name="bn")(nn.Dense(3)(x)), None


def stack(*shape):
    layers = [layer(seed) for seed in range(np.prod(shape))]
    return jax.tree.map(lambda *v: jnp.stack(v).reshape(*shape, 3), *layers)


def test_stacked_layers_of_linen_keep_their_axes():
    variables = Ensemble().init(jax.random.key(0), X)
    new = convert.to_linen({"net/bn": stack(2, 3)}, into=variables)
    chex.assert_trees_all_equal_shapes(new, variables)
    ((path, layers),) = convert.from_linen(new).items()
    assert path == "net/bn"
    chex.assert_trees_all_equal(layers, stack(2, 3))

    y = Ensemble().apply(new, X)
    for member in range(2):
        x = X
        for i in range(3):
            (affine, stats), dense = jax.tree.map(
                itemgetter((member, i)), (layers, new["params"]["net"]["Dense_0"])
            )
            x = jbn.normalize(nn.Dense(3).apply({"params": dense}, x), *stats, *affine)
        np.testing.assert_allclose(y[member], x, rtol=1e-5, atol=1e-5)


def test_stacked_layers_of_nnx_keep_their_axes():
    model = nnx.vmap(lambda rngs: jbn.nnx.BatchNorm(3, rngs=rngs))(nnx.Rngs(0).split(2))
    nnx.update(model, convert.to_nnx({"": stack(2)}, into=model))
    chex.assert_trees_all_equal(convert.from_nnx(model), {"": stack(2)})


def test_a_stack_is_refused_where_there_is_none():
    with pytest.raises(ValueError, match=r"'n' is a stack of layers, of shape \(2, 3\).*PyTorch"):
        convert.to_torch({"n": stack(2)})
    layers = jax.tree.map(lambda v: v[1], {"n": stack(2)})
    chex.assert_trees_all_equal(convert.from_torch(convert.to_torch(layers)), {"n": layer(1)})
    with pytest.raises(ValueError, match="must have one axis"):
        convert.from_torch(dict(zip(("weight", "bias", "running_mean", "running_var"), [X] * 4)))
    with pytest.raises(ValueError, match=r"\(\(2, 3\), \(3,\)\)"):
        convert.to_linen({"n": stack(2)}, into=convert.to_linen({"n": layer(0)}))
