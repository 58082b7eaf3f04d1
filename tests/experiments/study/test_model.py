"""Layers and norms found in anyone's network, and networks refused in one line."""

import dataclasses
from functools import partial
from typing import Any

import chex
import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from experiments.study import MLP, Norm, Objective, Regression, Standard
from experiments.study.model import find_model
from experiments.study.trace import identity, trace
from experiments.study.values import ConfigError

X = jax.random.normal(jax.random.key(0), (32, 5))


class Deep(nn.Module):
    """Twelve layers, whose names sort otherwise than they come, and a convolution in a block."""

    norm: Norm

    @nn.compact
    def __call__(self, x, train: bool):
        for i in range(1, 12):
            x = self.norm(f"norm_{i}")(nn.Dense(4, name=f"layer_{i}")(x.reshape(16, -1)))
        x = Block(self.norm, name="a_block")(x[:, None, :, None])
        x = nn.Dropout(0.5, deterministic=not train)(x)
        return nn.Dense(10, name="a_head")(x.reshape(16, -1))


class Block(nn.Module):
    norm: Norm

    @nn.compact
    def __call__(self, x):
        return x + self.norm("norm")(nn.Conv(1, (1, 3), name="conv")(x))


def test_layers_and_norms_are_in_the_order_of_their_calls(small):
    model = find_model(small(network=Deep, init_std=None), nn.LayerNorm(), (8, 8, 1), 10)
    assert model.layers == [*(f"layer_{i}" for i in range(1, 12)), "a_block/conv", "a_head"]
    assert list(model.places) == [*(f"norm_{i}" for i in range(1, 12)), "a_block/norm"]


def test_a_network_that_drops_units_does_so_in_training_alone(small):
    model = find_model(small(network=Deep, init_std=None), None, (8, 8, 1), 10)
    state = model.init(jax.random.key(0), {})
    x = jax.random.normal(jax.random.key(1), (16, 8, 8, 1))
    keys = [jax.random.key(i) for i in (1, 1, 2)]
    a, b, c = (model.train(state, x, {}, dropout=key)[0] for key in keys)
    chex.assert_trees_all_equal(a, b)
    assert not np.allclose(a, c)
    first, given = model.infer(state, x, {})
    chex.assert_trees_all_equal(first, model.infer(state, x, {})[0])
    assert len(given) == 12


def built(study, norm):
    model = find_model(study, norm, (5,), 10)
    return model, model.init(jax.random.key(1), {})


def test_an_mlp_without_norm_is_dense_layers(small):
    model, state = built(small(activation="relu"), None)
    scores, given = model.infer(state, X, {})
    p: Any = state.params
    z1 = X @ p["hidden_1"]["kernel"].T + p["hidden_1"]["bias"][None]
    z2 = jnp.maximum(z1, 0) @ p["hidden_2"]["kernel"].T + p["hidden_2"]["bias"][None]
    chex.assert_trees_all_close(given, [z1, z2], rtol=1e-5)
    output = jnp.maximum(z2, 0) @ p["output"]["kernel"].T + p["output"]["bias"][None]
    chex.assert_trees_all_close(scores, output, rtol=1e-5, atol=1e-6)
    assert state.collections == {}


def test_no_bias_where_a_norm_has_its_own(small):
    for norm, bias in ((Standard(), False), (nn.LayerNorm(), False), (nn.RMSNorm(), True)):
        _, state = built(small(), norm)
        assert ("bias" in state.params["hidden_1"]) == bias
        assert "bias" in state.params["output"]


def test_momentum_and_epsilon_reach_a_variant(small):
    model, state = built(small(momentum=0.9), Standard())
    mean = X.mean(0) @ state.params["hidden_1"]["kernel"].T
    _, after = model.train(state, X, {})
    running = after["batch_stats"]["norm_1"]["mean"]
    chex.assert_trees_all_close(running, 0.1 * mean, rtol=1e-4, atol=1e-6)
    population = model.of_population(state, X, {})
    running = population.collections["batch_stats"]["norm_1"]["mean"]
    chex.assert_trees_all_close(running, mean, rtol=1e-4, atol=1e-6)
    _, given = model.infer(population, X, {"epsilon": jnp.float32(1e6)})
    assert jnp.abs(given[-1]).max() < 0.1


@pytest.mark.parametrize(
    ("fields", "std"),
    [
        ({"init_std": 0.5}, 0.5),
        ({"init_std": None, "activation": "relu"}, (2 / 64) ** 0.5),
        ({"init_std": None, "activation": jax.nn.elu}, (2 / 64) ** 0.5),
        ({"init_std": None, "activation": "tanh"}, (1 / 64) ** 0.5),
        ({"init_std": None, "activation": "sigmoid"}, (1 / 64) ** 0.5),
    ],
)
def test_the_spread_of_initial_kernels(small, fields, std):
    study = small(widths=(500,), batch_size=2, **fields)
    state = find_model(study, None, (8, 8, 1), 10).init(jax.random.key(0), {})
    assert np.std(state.params["hidden_1"]["kernel"]) == pytest.approx(std, rel=0.03)


@pytest.mark.parametrize("activation", ["sigmoid", "tanh", "relu", "gelu", "elu", "silu"])
def test_activations(small, activation):
    model, state = built(small(activation=activation, widths=(3,)), None)
    scores, given = model.infer(state, X, {})
    output = getattr(nn, activation)(given[-1]) @ state.params["output"]["kernel"].T
    chex.assert_trees_all_close(scores, output, rtol=1e-5, atol=1e-6)


def broken(norm):
    raise RuntimeError("boom")


class WithoutNorm(nn.Module):
    norm: Norm

    @nn.compact
    def __call__(self, x):
        return nn.Dense(10)(x.reshape(16, -1))


class Narrow(WithoutNorm):
    @nn.compact
    def __call__(self, x):
        return nn.Dense(3)(self.norm("norm")(x.reshape(16, -1)))


class Weightless(WithoutNorm):
    @nn.compact
    def __call__(self, x):
        return self.norm("norm")(x.reshape(16, -1))[:, :10]


class Failing(WithoutNorm):
    @nn.compact
    def __call__(self, x):
        return self.norm("norm")(x.reshape(7, 7))


REFUSED = {
    "raises": (broken, r"norms\['no norm'\]: RuntimeError: boom \(.*test_model\.py:\d+\)"),
    "fails inside": (Failing, r"norms\['no norm'\]: TypeError: .* \(.*test_model\.py:\d+\)"),
    "no module": (lambda norm: 3, "network: needs to return a Flax module, returned 3"),
    "no norm": (WithoutNorm, r"network: has no place for a norm: norm\(name\)\(x\) is called nowh"),
    "no layer": (Weightless, "network: has no layer"),
    "outputs": (
        Narrow,
        r"network: gives float32\[16, 3\] for 16 examples, needs float32\[16, 10\]",
    ),
}


@pytest.mark.parametrize(("network", "says"), REFUSED.values(), ids=REFUSED)
def test_a_network_that_cannot_be_trained_is_refused_in_one_line(small, network, says):
    with pytest.raises(ConfigError, match=f"^{says}") as refused:
        trace(small(network=network, init_std=None))
    assert "\n" not in str(refused.value)


def test_a_norm_that_fails_is_named(small):
    norms = {"none": None, "group": nn.GroupNorm(5)}
    with pytest.raises(ConfigError, match=r"^norms\['group'\]: ValueError: .*group"):
        trace(small(norms=norms))


def test_networks_of_other_layers_are_refused(small):
    def network(norm, outputs):
        return MLP((3,) if norm.has_bias else (3, 3), "relu")(norm, outputs)

    with pytest.raises(ConfigError, match="'batch norm'.: the network's layers are hidden_1, outp"):
        trace(small(network=network, init_std=None))


def test_a_loss_that_is_not_of_each_example_is_refused(small):
    def one(outputs, targets):
        return jnp.mean(outputs)

    task = Objective(one, one, counts_classes=True)
    with pytest.raises(ConfigError, match=r"^task: loss gives \(\) for 16 examples, needs"):
        trace(small(task=task))


def test_real_targets_need_as_many_outputs(small):
    study = small(task=Regression())
    assert trace(study).examples.outputs == 1
    assert find_model(study, None, (8, 8, 1), 1).layers == ["hidden_1", "hidden_2", "output"]


def test_an_identity_is_the_data_and_the_programs(small):
    def network(size, norm):
        return MLP((size,), "relu")(norm, 10)

    def known(size, **fields):
        # Their printed configs are one: a function's name says nothing of what it encloses.
        fields = {"network": lambda norm: network(size, norm), "norms": {"a": None}, **fields}
        return identity(trace(small(init_std=None, **fields)))

    one = known(3)
    assert one == known(3)
    assert one["programs"] != known(4)["programs"]
    digits = dataclasses.replace(small().data, validation=0.1)
    assert one["data"] != known(3, data=digits)["data"]


def test_a_factory_of_a_module_is_a_norm(small):
    model = find_model(small(), partial(nn.GroupNorm, num_groups=2), (5,), 10)
    state = model.init(jax.random.key(0), {})
    assert set(state.params["norm_1"]) == {"scale", "bias"}
