"""Norms under study: rivals beside Flax's own, each at inference as itself."""

import chex
import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from experiments.study.networks import Dense
from experiments.study.norms import DynamicTanh, Norm, WeightNorm, fold_in, weights_known
from jbn import Ghost, Noisy, Renorm, Standard

X = jax.random.normal(jax.random.key(0), (6, 4, 4, 5))


class Placed(nn.Module):
    """A layer, and the norm under study at one place after it."""

    layer: nn.Module
    norm: Norm

    @nn.compact
    def __call__(self, x):
        return self.norm("norm")(self.layer(x))


def kernel_init(key, shape, dtype):
    return jax.random.normal(key, shape, dtype)


LAYERS = {
    "Dense": (nn.Dense(7), X[:, 0, 0]),
    "Conv": (nn.Conv(7, (3, 3)), X),
    "units first": (Dense(7, kernel_init), X[:, 0, 0]),
}


@pytest.mark.parametrize(("layer", "x"), LAYERS.values(), ids=LAYERS)
def test_weight_norm_is_flaxs_around_the_layer(layer, x):
    name = "layer_instance"
    placed = Placed(layer.clone(use_bias=False), Norm(WeightNorm()))
    axis = 0 if isinstance(layer, Dense) else -1
    wrapped = nn.WeightNorm(layer.clone(name=name), feature_axes=axis)
    with weights_known():
        params = placed.init(jax.random.key(1), x)["params"]
    key = jax.random.key(2)
    params["norm"] = {"scale": jax.random.normal(key, (7,)), "bias": jax.random.normal(key, (7,))}
    v = jax.random.normal(jax.random.key(3), (*x.shape[:-1], 7))

    def ours(params, x):
        with weights_known():
            return jnp.sum(v * placed.apply({"params": params}, x))

    def flaxs(params, x):
        theirs: dict = {
            name: {"kernel": params["layer"]["kernel"], "bias": params["norm"]["bias"]},
            f"{wrapped.name or ''}{name}/kernel/scale": params["norm"]["scale"],
        }
        return jnp.sum(v * wrapped.apply({"params": theirs}, x))

    mine = jax.value_and_grad(ours, argnums=(0, 1))(params, x)
    chex.assert_trees_all_close(
        mine, jax.value_and_grad(flaxs, argnums=(0, 1))(params, x), rtol=1e-5, atol=1e-5
    )


def test_weight_norm_needs_what_a_layer_gives_out():
    placed = Placed(nn.LayerNorm(), Norm(WeightNorm()))
    with weights_known(), pytest.raises(ValueError, match="WeightNorm needs what a layer with a"):
        placed.init(jax.random.key(1), X)


def test_dynamic_tanh_is_its_equation():
    layer = DynamicTanh()
    params = {"alpha": jnp.float32(0.7), "scale": jnp.arange(5.0), "bias": jnp.ones(5)}
    y = layer.apply({"params": params}, X)
    expected = np.tanh(0.7 * np.float64(X)) * np.arange(5) + 1
    np.testing.assert_allclose(y, expected, rtol=1e-5, atol=1e-6)
    assert layer.init(jax.random.key(0), X)["params"]["alpha"] == 0.5


@pytest.mark.parametrize(
    ("value", "bias"),
    [(None, False), (Standard(), True), (nn.LayerNorm(), True), (nn.RMSNorm(), False)],
    ids=["none", "batch", "layer", "RMS"],
)
def test_a_network_can_ask_whether_there_is_a_bias(value, bias):
    assert Norm.of(value).has_bias == bias


@pytest.mark.parametrize("value", [Standard(), nn.BatchNorm()], ids=["jbn", "flax"])
def test_a_batch_norm_trains_and_infers_with_its_own_statistics(value):
    x = 3 + 2 * X[:, 0, 0]
    norm = Norm.of(value)

    def placed(norm):
        return Placed(lambda x: x, norm)

    variables = placed(norm.in_training()).init(jax.random.key(1), x)
    y, population = placed(norm.of_population()).apply(variables, x, mutable=["batch_stats"])
    chex.assert_trees_all_close(y.mean(0), jnp.zeros(5), atol=1e-5)
    stats = population["batch_stats"]["norm"]
    chex.assert_trees_all_close(stats["mean"], x.mean(0), rtol=1e-5)
    inferred = placed(norm.at_inference()).apply({**variables, **population}, x[:1])
    chex.assert_trees_all_close(inferred, y[:1], rtol=1e-4, atol=1e-5)


def test_a_variant_infers_as_its_population():
    norm = Norm.of(Ghost(2, base=Noisy(jax.random.key(0), base=Renorm())))
    assert norm.at_inference().layer.variant == Standard()
    assert norm.of_population().layer.variant == Standard()
    assert norm.of_population().layer.momentum == 0.0


def test_noise_is_each_places_own():
    """Had both the same noise, the second would be scaled and shifted as the first."""

    class Two(nn.Module):
        norm: Norm

        @nn.compact
        def __call__(self, x):
            return self.norm("a")(x), self.norm("b")(x)

    x = jax.random.normal(jax.random.key(1), (500, 40))
    norm = Norm.of(Noisy(jax.random.key(0)), ("a", "b")).in_training()
    variables = Two(norm).init(jax.random.key(2), x)
    outputs, _ = Two(norm).apply(variables, x, mutable=["batch_stats"])
    first, second = (z.mean(axis=0) for z in outputs)
    assert abs(jnp.corrcoef(first, second)[0, 1]) < 0.5
    assert 0.2 < jnp.std(first) < 0.4  # that of U(-0.5, 0.5) is 0.29


def test_only_keys_take_a_number_in():
    noisy = Noisy(jax.random.key(1), base=Renorm(r_max=2.0))
    folded = fold_in(noisy, 3)
    assert folded.key == jax.random.fold_in(noisy.key, 3)
    assert folded.base == noisy.base
    assert fold_in(Standard(), 3) == Standard()
