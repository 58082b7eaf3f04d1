"""What stands in a layer's weights in batch norm's place: in random layers and in networks."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from experiments.papers.tools.convolution import CNN
from experiments.papers.tools.in_weights import (
    UNIT_VARIANCE,
    WEIGHT_STANDARDISATION,
    NoPlace,
    gain_of,
    standardized,
)
from experiments.papers.tools.mlp import MLP, in_training
from experiments.papers.tools.stand_ins import NORMS, as_function, as_layer

RNG = np.random.default_rng(0)
X = RNG.normal(1.0, 2.0, (6, 8)).astype(np.float32)
W = RNG.normal(0.3, 1.0, (8, 5)).astype(np.float32)
IMAGES = RNG.normal(size=(9, 16)).astype(np.float32)
HE = jax.nn.initializers.he_normal()


def test_the_gain_gives_an_activation_variance_one():
    assert gain_of(jax.nn.relu) == pytest.approx(np.sqrt(2 / (1 - 1 / np.pi)), rel=2e-3)
    assert gain_of(lambda z: z) == pytest.approx(1, rel=2e-3)


@pytest.mark.parametrize("trained", [False, True])
def test_a_layer_of_standardised_weights(trained):
    layer = as_layer(WEIGHT_STANDARDISATION, jax.nn.relu, trained=trained)
    expected = gain_of(jax.nn.relu) * (X @ standardized(W))
    np.testing.assert_allclose(layer(X, W), expected, rtol=1e-5, atol=1e-5)


def test_a_layer_of_unit_variance():
    layer = as_layer(UNIT_VARIANCE, jax.nn.relu)
    expected = X @ W / np.sqrt(np.square(X @ W).mean())
    np.testing.assert_allclose(layer(X, W), expected, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(layer(X, W, np.ones_like(expected)), expected + 1, rtol=1e-5)
    slope = jax.grad(lambda h: layer(h, W)[0, 0])(jnp.asarray(X))
    np.testing.assert_allclose(slope[1:], 0)  # the other examples are no part of the function


@pytest.mark.parametrize("norm", NORMS.values(), ids=NORMS)
def test_a_layer_has_any_norm_after_its_product(norm):
    kernel = jnp.asarray(W[:, :4])
    y = as_layer(norm, jax.nn.relu)(jnp.asarray(X), kernel)
    np.testing.assert_array_equal(y, as_function(norm)(X @ kernel))


@pytest.mark.parametrize("norm", [WEIGHT_STANDARDISATION, UNIT_VARIANCE])
def test_where_no_layer_comes_right_before_it_there_is_no_place(norm):
    class Other(MLP):
        @nn.compact
        def __call__(self, x, *, use_running_average):
            return self._norm(1, use_running_average)(x)

    for placed in (
        lambda: as_function(norm),
        lambda: Other((8,), jax.nn.relu, HE, norm).init(
            jax.random.key(0), X, use_running_average=False
        ),
    ):
        with pytest.raises(NoPlace, match="made in the weights of a layer"):
            placed()


def test_there_is_no_place_for_initial_weights_where_others_were_drawn():
    with pytest.raises(NoPlace, match="initial weights"):
        as_layer(UNIT_VARIANCE, jax.nn.relu, trained=True)


def begin(kind, norm):
    model = kind((8, 8), jnp.tanh, HE, norm)
    return model, model.init(jax.random.key(0), IMAGES, use_running_average=False)["params"]


@pytest.mark.parametrize("kind", [MLP, CNN])
def test_a_network_begins_with_unit_variance_and_then_has_no_norm(kind):
    model, params = begin(kind, UNIT_VARIANCE)
    _, inputs, _ = in_training(model, params, {}, jnp.asarray(IMAGES))
    np.testing.assert_allclose([np.square(z).mean() for z in inputs], 1, rtol=1e-5)
    plain, before = begin(kind, None)
    assert jax.tree.structure(params) == jax.tree.structure(before)
    moved = jax.tree.map(lambda p: 3 * p, params)
    ours, theirs = (in_training(m, moved, {}, jnp.asarray(IMAGES))[0] for m in (model, plain))
    np.testing.assert_array_equal(ours, theirs)


@pytest.mark.parametrize("kind", [MLP, CNN])
def test_a_network_standardises_its_weights_at_every_step(kind):
    model, params = begin(kind, WEIGHT_STANDARDISATION)
    plain, others = begin(kind, None)
    for i in (1, 2):
        kernel = params[f"hidden_{i}"]["kernel"]
        params[f"hidden_{i}"]["kernel"] = 3 * kernel + 1
        kernel = standardized(kernel.mT if kind is MLP else kernel) * gain_of(jnp.tanh)
        others[f"hidden_{i}"]["kernel"] = kernel.mT if kind is MLP else kernel
        bias = jnp.arange(8, dtype=jnp.float32)
        params[f"norm_{i}"]["bias"] = others[f"hidden_{i}"]["bias"] = bias
    assert {*params["norm_1"]} == {"scale", "bias"}
    assert {*params["hidden_1"]} == {"kernel"}
    ours = in_training(model, params, {}, jnp.asarray(IMAGES))[0]
    theirs = in_training(plain, others, {}, jnp.asarray(IMAGES))[0]
    np.testing.assert_allclose(ours, theirs, rtol=1e-3, atol=1e-4)
