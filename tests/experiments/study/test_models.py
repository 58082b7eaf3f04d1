from functools import partial
from typing import Any

import chex
import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from experiments.study.models import fold_in, layer_names, make_model
from jbn import Noisy, Renorm, Standard

X = jax.random.normal(jax.random.key(0), (32, 5))


def build(study, norm):
    model = make_model(study, norm)
    variables: Any = model.init(jax.random.key(1), X, use_running_average=False)
    return model, variables


def test_a_network_without_norm_is_dense_layers(small):
    model, variables = build(small(activation="relu"), None)
    scores, inputs = model.apply(variables, X, use_running_average=True)
    p = variables["params"]
    z1 = X @ p["hidden_1"]["kernel"].T + p["hidden_1"]["bias"][None]
    z2 = jnp.maximum(z1, 0) @ p["hidden_2"]["kernel"].T + p["hidden_2"]["bias"][None]
    chex.assert_trees_all_close(inputs, (z1, z2), rtol=1e-5)
    output = jnp.maximum(z2, 0) @ p["output"]["kernel"].T + p["output"]["bias"][None]
    chex.assert_trees_all_close(scores, output, rtol=1e-5, atol=1e-6)
    assert "batch_stats" not in variables


def test_the_inputs_handed_back_are_those_after_the_norm(small):
    model, variables = build(small(), Standard())
    (_, inputs), _ = model.apply(variables, X, use_running_average=False, mutable=["batch_stats"])
    chex.assert_shape(inputs, [(32, 8), (32, 6)])
    for z in inputs:
        chex.assert_trees_all_close(z.mean(0), jnp.zeros_like(z[0]), atol=1e-5)
        chex.assert_trees_all_close(z.std(0), jnp.ones_like(z[0]), atol=1e-2)


def test_no_bias_where_a_norm_has_its_own(small):
    _, variables = build(small(), Standard())
    params = variables["params"]
    assert set(params["hidden_1"]) == {"kernel"}
    assert set(params["norm_1"]) == {"scale", "bias"}
    assert set(params["output"]) == {"kernel", "bias"}


def test_momentum_of_the_call_takes_the_place_of_the_fields(small):
    model, variables = build(small(momentum=0.9), Standard())
    mean = X.mean(0) @ variables["params"]["hidden_1"]["kernel"].T
    for momentum, keep in ((None, 0.9), (0.0, 0.0)):
        _, updated = model.apply(
            variables, X, use_running_average=False, momentum=momentum, mutable=["batch_stats"]
        )
        running = updated["batch_stats"]["norm_1"]["mean"]
        chex.assert_trees_all_close(running, (1 - keep) * mean, rtol=1e-4, atol=1e-6)


def test_epsilon_reaches_the_norm(small):
    model, variables = build(small(epsilon=1e6), Standard())
    (_, inputs), _ = model.apply(variables, X, use_running_average=False, mutable=["batch_stats"])
    assert jnp.abs(inputs[-1]).max() < 0.1


@pytest.mark.parametrize(
    ("fields", "std"),
    [
        ({"init_std": 0.5}, 0.5),
        ({"init_std": None, "activation": "relu"}, (2 / 64) ** 0.5),
        ({"init_std": None, "activation": "gelu"}, (2 / 64) ** 0.5),
        ({"init_std": None, "activation": "tanh"}, (1 / 64) ** 0.5),
        ({"init_std": None, "activation": "sigmoid"}, (1 / 64) ** 0.5),
    ],
)
def test_the_spread_of_initial_kernels(small, fields, std):
    model = make_model(small(widths=(500,), **fields), None)
    variables: Any = model.init(jax.random.key(0), jnp.zeros((1, 64)), use_running_average=False)
    assert np.std(variables["params"]["hidden_1"]["kernel"]) == pytest.approx(std, rel=0.03)


@pytest.mark.parametrize("activation", ["sigmoid", "tanh", "relu", "gelu"])
def test_activations(small, activation):
    model, variables = build(small(activation=activation, widths=(3,)), None)
    scores, inputs = model.apply(variables, X, use_running_average=True)
    hidden = getattr(nn, activation)(inputs[-1])
    output = hidden @ variables["params"]["output"]["kernel"].T
    chex.assert_trees_all_close(scores, output, rtol=1e-5, atol=1e-6)


def test_layers_are_named_from_the_input_up(small):
    _, variables = build(small(widths=(4, 4, 4)), None)
    names = layer_names(small(widths=(4, 4, 4)))
    assert names == ["hidden_1", "hidden_2", "hidden_3", "output"]
    assert set(names) == set(variables["params"])


def test_only_keys_take_a_number_in():
    noisy = Noisy(jax.random.key(1), base=Renorm(r_max=2.0))
    folded = fold_in(noisy, 3)
    assert folded.key == jax.random.fold_in(noisy.key, 3)
    assert folded.base == noisy.base
    assert fold_in(Standard(), 3) == Standard()


def test_noise_is_each_layers_own(small):
    """Had both layers the same noise, the second would be scaled and shifted as the first."""
    model = make_model(small(widths=(40, 40)), Noisy(jax.random.key(0)))
    x = jax.random.normal(jax.random.key(1), (500, 5))
    variables = model.init(jax.random.key(2), x, use_running_average=False)
    run = partial(model.apply, use_running_average=False, mutable=["batch_stats"])
    first, second = (z.mean(axis=0) for z in run(variables, x)[0][1])
    assert abs(jnp.corrcoef(first, second)[0, 1]) < 0.5
    assert 0.2 < jnp.std(first) < 0.4  # that of U(-0.5, 0.5) is 0.29
