"""Norms in batch norm's place: what they compute, and where a network has them."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from experiments.papers.claim import Setting, once
from experiments.papers.tools.digits import digits, initial, loss, network
from experiments.papers.tools.in_weights import NoPlace
from experiments.papers.tools.mlp import MLP, in_training
from experiments.papers.tools.stand_ins import (
    BATCH_NORM,
    DETACHED,
    NORMS,
    as_function,
    beside_no_norm,
)
from jbn import Standard

X = np.random.default_rng(0).normal(1.0, 2.0, (6, 8)).astype(np.float32)


def _over(x, axis, mean=True):
    x = np.asarray(x, np.float64)
    centre = x.mean(axis, keepdims=True) if mean else 0.0
    return (x - centre) / np.sqrt(np.square(x - centre).mean(axis, keepdims=True))


EXPECTED = {
    "no norm": X,
    "layer norm": _over(X, 1),
    "RMS norm": _over(X, 1, mean=False),
    "group norm": _over(X.reshape(6, 4, 2), 2).reshape(6, 8),
    "dynamic tanh": np.tanh(0.5 * X),
}


@pytest.mark.parametrize("name", NORMS)
def test_a_function_is_its_norm_at_init(name):
    np.testing.assert_allclose(as_function(NORMS[name])(X), EXPECTED[name], atol=2e-5)


def test_detached_statistics_pass_the_gradient_on():
    (detached,) = DETACHED.values()
    cotangent = X[::-1]
    y, back = jax.vjp(as_function(detached), jnp.asarray(X))
    np.testing.assert_allclose(y, as_function(Standard())(X), atol=1e-6)
    np.testing.assert_allclose(back(cotangent)[0], cotangent / X.std(axis=0), rtol=1e-5)


@pytest.mark.parametrize("name", NORMS)
def test_a_network_has_them_before_each_activation(name):
    init = jax.nn.initializers.he_normal()
    model = MLP((8, 8), jax.nn.relu, init, NORMS[name], epsilon=0.5)
    variables = model.init(jax.random.key(0), X, use_running_average=False)
    kernel, bias = (variables["params"]["hidden_1"].get(part) for part in ("kernel", "bias"))
    assert (bias is None) == (name not in ("no norm", "RMS norm"))
    _, inputs, _ = in_training(model, variables["params"], {}, jnp.asarray(X))
    expected = as_function(NORMS[name], 0.5)(X @ kernel.mT)
    np.testing.assert_allclose(inputs[0], expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", NORMS)
def test_a_norm_over_units_needs_more_than_one(name):
    function = as_function(NORMS[name])
    if name in ("no norm", "dynamic tanh"):
        assert function(X[:, :1]).shape == (6, 1)
    else:
        with pytest.raises(NoPlace, match="but one unit"):
            function(X[:, :1])


def test_rivals_share_the_networks_without_a_norm():
    asked = []
    arms = once(lambda setting, norms: asked.append(norms) or [str(norm) for norm in norms])
    for norm in (BATCH_NORM, NORMS["layer norm"], None):
        assert beside_no_norm(arms, Setting(), norm) == ("None", str(norm))
    assert asked == [(None, BATCH_NORM), (NORMS["layer norm"],), (None,)]


def first_norm(norm):
    """That of a network on the digits without an epsilon, None if it has none."""
    found = []

    def note(call, arguments, options, context):
        if context.module.name == "norm_1":
            found.append(context.module)
        return call(*arguments, **options)

    with nn.intercept_methods(note):
        initial(network((8,), norm, 1e-30), jax.random.key(0))
    return found[0] if found else None


def test_epsilon_is_given_to_norms_that_have_one():
    assert first_norm(NORMS["layer norm"]).epsilon == 1e-30
    grouped = first_norm(NORMS["group norm"])
    assert (grouped.epsilon, grouped.num_groups) == (1e-30, 4)
    assert first_norm(Standard()).epsilon == 1e-30
    assert first_norm(None) is None
    assert not hasattr(first_norm(NORMS["dynamic tanh"]), "epsilon")


@pytest.mark.parametrize("name", ["RMS norm", "layer norm"])
def test_a_network_on_the_digits_takes_any_norm(name):
    model = network((8,), NORMS[name])
    params = initial(model, jax.random.key(0))
    value, _ = loss(model, params, digits(6))
    assert np.isfinite(value)
