"""The three switches of docs/freezing.md, one test for each row, in each of the three APIs."""

import chex
import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx

import jbn
import jbn.linen
import jbn.nnx

FEATURES = 5
START = {
    "scale": jnp.linspace(0.5, 2, FEATURES),
    "bias": jnp.linspace(-1, 1, FEATURES),
    "mean": jnp.linspace(1, 3, FEATURES),
    "var": jnp.linspace(0.3, 7, FEATURES),
}
AFFINE = jbn.Affine(START["scale"], START["bias"])
STATS = jbn.RunningStats(START["mean"], START["var"])


def batches(key, count=3):
    for step in range(count):
        yield 2 * jax.random.normal(jax.random.fold_in(key, step), (16, FEATURES)) + step


class Functions:
    def __init__(self):
        self.stats = STATS

    def __call__(self, x, *, running=False, **momentum):
        if running:
            return jbn.normalize(x, *self.stats, *AFFINE)
        y, self.stats = jbn.batch_norm(x, AFFINE, self.stats, **momentum)
        return y


class Linen:
    def __init__(self):
        self.variables = {
            "params": {name: START[name] for name in ("scale", "bias")},
            "batch_stats": {name: START[name] for name in ("mean", "var")},
        }

    def __call__(self, x, *, running=False, **momentum):
        y, updates = jbn.linen.BatchNorm().apply(
            self.variables, x, running, mutable=["batch_stats"], **momentum
        )
        self.variables = {**self.variables, **updates}
        return y

    @property
    def stats(self):
        return jbn.RunningStats(**self.variables["batch_stats"])


class Nnx:
    def __init__(self):
        self.layer = jbn.nnx.BatchNorm(FEATURES, rngs=nnx.Rngs(0))
        for name, value in START.items():
            getattr(self.layer, name)[...] = value

    def __call__(self, x, *, running=False, **momentum):
        self.layer.eval() if running else self.layer.train()
        return self.layer(x, **momentum)

    @property
    def stats(self):
        return jbn.RunningStats(self.layer.mean[...], self.layer.var[...])


APIS = pytest.mark.parametrize("api", [Functions, Linen, Nnx])


@APIS
def test_statistics_used_are_the_batch_s(api, key):
    for x in batches(key):
        y, _ = jbn.batch_norm(x, AFFINE, STATS)
        chex.assert_trees_all_close(api()(x), y, atol=1e-6)


@APIS
def test_statistics_used_are_the_running_ones(api, key):
    norm = api()
    for x in batches(key):
        mean, var, scale, bias = map(np.asarray, (*STATS, *AFFINE))
        y = (np.asarray(x) - mean) / np.sqrt(var + 1e-5) * scale + bias
        chex.assert_trees_all_close(norm(x, running=True), y, atol=1e-5)
    chex.assert_trees_all_equal(norm.stats, STATS)


@APIS
def test_statistics_are_updated(api, key):
    norm, expected = api(), STATS
    for x in batches(key):
        norm(x)
        expected = jbn.update_running(expected, jbn.batch_moments(x), momentum=0.99)
    chex.assert_trees_all_close(norm.stats, expected, rtol=1e-6)
    assert np.all(np.asarray(norm.stats.mean) != np.asarray(STATS.mean))


@APIS
@pytest.mark.parametrize("traced", [False, True])
def test_statistics_are_not_updated_to_the_last_bit(api, key, traced):
    norm = api()
    momentum = jnp.float32(1) if traced else 1.0
    for x in batches(key, 100):
        y = norm(x, momentum=momentum)
    chex.assert_trees_all_equal(norm.stats, STATS)
    chex.assert_trees_all_close(y, jbn.batch_norm(x, AFFINE, STATS)[0], atol=1e-6)


@APIS
def test_statistics_used_are_running_and_updated(api, key):
    norm, expected = api(), STATS
    for x in batches(key):
        norm(x)
        y = norm(x, running=True)
        expected = jbn.update_running(expected, jbn.batch_moments(x), momentum=0.99)
        chex.assert_trees_all_close(y, jbn.normalize(x, *expected, *AFFINE), atol=1e-5)


# Decay and momentum are updates too, and must not slip past the mask.
DECAYING = optax.chain(optax.add_decayed_weights(1e-2), optax.sgd(1e-2, momentum=0.9))


def norms(params):
    return jax.tree_util.tree_map_with_path(
        lambda path, _: "norm" in jax.tree_util.keystr(path), params
    )


@pytest.mark.parametrize("trained", [True, False])
def test_the_affine_map_is_trained_or_not(key, trained):
    freeze = optax.masked(optax.set_to_zero(), norms)
    optimizer = DECAYING if trained else optax.chain(DECAYING, freeze)
    x = jax.random.normal(key, (16, 4))

    # With functions, and with Linen.
    class Net(nn.Module):
        @nn.compact
        def __call__(self, x):
            x = nn.Dense(FEATURES, use_bias=False)(x)
            return jbn.linen.BatchNorm(use_running_average=False, name="norm")(x)

    variables = Net().init(key, x)

    def functions(params):
        return jbn.batch_norm(x @ params["kernel"], params["norm"], jbn.init(FEATURES)[1])[0]

    def linen(params):
        return Net().apply({**variables, "params": params}, x, mutable=["batch_stats"])[0]

    kernel = variables["params"]["Dense_0"]["kernel"]
    for model, start in (
        (functions, {"kernel": kernel, "norm": jbn.init(FEATURES)[0]}),
        (linen, variables["params"]),
    ):
        params, state = start, optimizer.init(start)
        for _ in range(3):
            grads = jax.grad(lambda p, model=model: jnp.sum(jnp.square(model(p) - 1)))(params)
            updates, state = optimizer.update(grads, state, params)
            params = optax.apply_updates(params, updates)
        moved = jax.tree.map(lambda a, b: bool(jnp.any(a != b)), params, start)
        assert (
            all(jax.tree.leaves(moved["norm"]))
            if trained
            else not any(jax.tree.leaves(moved["norm"]))
        )
        assert jax.tree.leaves({k: v for k, v in moved.items() if k != "norm"}) == [True]


@pytest.mark.parametrize("trained", [True, False])
def test_the_affine_map_of_nnx_is_trained_or_not(key, trained):
    freeze = optax.masked(optax.set_to_zero(), norms)
    tx = DECAYING if trained else optax.chain(DECAYING, freeze)

    class Net(nnx.Module):
        def __init__(self, rngs):
            self.linear = nnx.Linear(4, FEATURES, use_bias=False, rngs=rngs)
            self.norm = jbn.nnx.BatchNorm(FEATURES, rngs=rngs)

    net = Net(nnx.Rngs(0))
    optimizer = nnx.Optimizer(net, tx, wrt=nnx.Param)
    x = jax.random.normal(key, (16, 4))
    kernel = net.linear.kernel[...]
    for _ in range(3):
        grads = nnx.grad(lambda net: jnp.sum(jnp.square(net.norm(net.linear(x)) - 1)))(net)
        optimizer.update(net, grads)
    assert bool(jnp.any(net.norm.scale[...] != 1)) == trained
    assert bool(jnp.any(net.norm.bias[...] != 0)) == trained
    assert bool(jnp.any(net.linear.kernel[...] != kernel))


def test_a_frozen_layer_stays_frozen_in_a_training_model(key):
    x = jax.random.normal(key, (16, FEATURES))

    class Net(nn.Module):
        @nn.compact
        def __call__(self, x, train):
            x = jbn.linen.BatchNorm(use_running_average=True, name="frozen")(x)
            return jbn.linen.BatchNorm(name="norm")(x, use_running_average=not train)

    variables = Net().init(key, x, train=True)
    _, updates = Net().apply(variables, x, train=True, mutable=["batch_stats"])
    before, after = variables["batch_stats"], updates["batch_stats"]
    chex.assert_trees_all_equal(after["frozen"], before["frozen"])
    assert np.all(np.asarray(after["norm"]["mean"]) != 0)
    with pytest.raises(ValueError, match="use_running_average"):
        jbn.linen.BatchNorm(use_running_average=True).init(key, x, use_running_average=False)

    layer = jbn.nnx.BatchNorm(FEATURES, rngs=nnx.Rngs(0))
    layer.train()
    layer(x, use_running_average=True)
    np.testing.assert_array_equal(layer.mean[...], 0)


@APIS
def test_frozen_statistics_pass_the_gradient_of_an_affine_map(api, key):
    x = next(batches(key))
    dx = jax.grad(lambda x: jnp.sum(jnp.sin(api()(x, running=True))))(x)
    y = np.asarray(jbn.normalize(x, *STATS, *AFFINE))
    slope = np.asarray(AFFINE.scale / jnp.sqrt(STATS.var + 1e-5))
    chex.assert_trees_all_close(dx, np.cos(y) * slope, atol=1e-5)
