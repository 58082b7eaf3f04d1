"""Optimizers beside their equations: schedules, weight decay and what it spares, clipping."""

import dataclasses

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from experiments.study import SGD, Adam, AdamW, Standard
from experiments.study.config import networks_of, swept
from experiments.study.optimizers import NUMBERS, scheduled
from experiments.study.train import make_optimizer

PARAMS = {"layer": {"kernel": jnp.float32([[1.0, -2.0]])}, "norm": {"scale": jnp.float32([3.0])}}
GRADIENT = jax.tree.map(lambda leaf: 0.5 * jnp.ones_like(leaf), PARAMS)


def update(optimizer, rate=0.1):
    with jax.numpy_dtype_promotion("standard"):  # optax mixes types
        found = optimizer(rate) if callable(optimizer) else optimizer
        taken, _ = found.update(GRADIENT, found.init(PARAMS), PARAMS)
    return taken["layer"]["kernel"], taken["norm"]["scale"]


@pytest.mark.parametrize("schedule", ["constant", "cosine"])
@pytest.mark.parametrize("warmup", [0, 1, 4])
def test_rates_rise_and_fall(schedule, warmup):
    steps = 20
    rate = scheduled(0.5, schedule, warmup, steps)
    for step in range(steps):
        fall = 1.0
        if schedule == "cosine" and step >= warmup:
            fall = (1 + np.cos(np.pi * (step - warmup) / (steps - warmup))) / 2
        expected = 0.5 * (min(1.0, (step + 1) / warmup) if warmup else 1.0) * fall
        found = rate(step) if callable(rate) else rate
        assert float(found) == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("decay_norms", [False, True])
def test_weight_decay_of_sgd(decay_norms):
    kernel, scale = update(SGD(weight_decay=0.2, decay_norms=decay_norms))
    np.testing.assert_allclose(kernel, -0.1 * (0.5 + 0.2 * np.array([[1.0, -2.0]])), rtol=1e-6)
    np.testing.assert_allclose(scale, [-0.1 * (0.5 + 0.2 * 3 * decay_norms)], rtol=1e-6)


@pytest.mark.parametrize("decay_norms", [False, True])
def test_adamw_decays_apart_from_the_gradient(decay_norms):
    kernel, scale = update(AdamW(weight_decay=0.2, decay_norms=decay_norms))
    step = -0.1  # the first step of Adam is the rate, in the direction of the gradient
    np.testing.assert_allclose(kernel, step - 0.02 * np.array([[1.0, -2.0]]), rtol=1e-4)
    np.testing.assert_allclose(scale, [step - 0.02 * 3 * decay_norms], rtol=1e-4)


def test_numbers_reach_optax():
    chosen = Adam(b1=0.5, b2=0.7, eps=0.1)
    np.testing.assert_array_equal(update(chosen)[0], update(optax.adam(0.1, 0.5, 0.7, 0.1))[0])
    nesterov = SGD(momentum=0.5, nesterov=True)
    np.testing.assert_allclose(update(nesterov)[0], -0.1 * 0.5 * 1.5 * np.ones((1, 2)), rtol=1e-6)


def test_gradients_are_clipped_all_together(small):
    study = small(clip=0.1, optimizer="sgd")
    kernel, scale = update(make_optimizer(study, jnp.float32(1), {}))
    assert float(jnp.sqrt(jnp.sum(kernel**2) + jnp.sum(scale**2))) == pytest.approx(0.1, rel=1e-5)


def test_a_decay_that_is_swept_takes_the_optimizers_place(small):
    study = small(optimizer=SGD(weight_decay=0.2), weight_decay=(0.0, 0.4))
    for decay in study.weight_decay:
        kernel, _ = update(make_optimizer(study, jnp.float32(0.1), {"weight_decay": decay}))
        expected = -0.1 * (0.5 + decay * np.array([[1.0, -2.0]]))
        np.testing.assert_allclose(kernel, expected, rtol=1e-6)


def test_any_function_of_a_rate_is_an_optimizer(small):
    study = small(optimizer=lambda rate: optax.sgd(rate, momentum=0.5), warmup=2)
    kernel, _ = update(make_optimizer(study, jnp.float32(0.1), {}))
    np.testing.assert_allclose(kernel, -0.05 * 0.5 * np.ones((1, 2)), rtol=1e-6)


@pytest.mark.parametrize(
    ("optimizer", "names"),
    [
        (SGD(momentum=(0.0, 0.9), weight_decay=(0.0, 0.1)), {"optimizer_momentum", "weight_decay"}),
        (Adam(b1=(0.5, 0.9), eps=(1e-8, 0.1)), {"b1", "eps"}),
        (AdamW(weight_decay=(0.0, 0.1), b2=(0.9, 0.99)), {"b2", "weight_decay"}),
    ],
    ids=["SGD", "Adam", "AdamW"],
)
def test_a_number_of_several_values_is_that_number_alone(small, optimizer, names):
    study = small(optimizer=optimizer, norms={"none": None, "bn": Standard()})
    several = swept(study, None)
    assert len(several) == 4
    assert {*several[0]} == names
    assert swept(study, Standard()) == several

    @jax.jit
    def descend(values):
        x, found = PARAMS, make_optimizer(study, jnp.float32(0.1), values)
        state = found.init(x)
        for _ in range(3):
            gradient = jax.tree.map(jnp.cos, x)
            taken, state = found.update(gradient, state, x)
            x = optax.apply_updates(x, taken)
        return x

    with jax.numpy_dtype_promotion("standard"):  # optax mixes types
        for values in several:
            own = {NUMBERS[name]: value for name, value in values.items()}
            alone = small(optimizer=dataclasses.replace(optimizer, **own))
            assert swept(alone, None) == [{}]
            x, found = PARAMS, make_optimizer(alone, jnp.float32(0.1), {})
            state = found.init(x)
            for _ in range(3):
                taken, state = found.update(jax.tree.map(jnp.cos, x), state, x)
                x = optax.apply_updates(x, taken)
            mine = descend(jax.tree.map(jnp.float32, values))
            chex.assert_trees_all_close(mine, x, rtol=1e-5)


def test_networks_are_named_by_the_optimizers_numbers(small):
    study = small(optimizer=SGD(momentum=(0.0, 0.9)), norms={"none": None})
    assert [*networks_of(study)] == ["none, optimizer_momentum=0.0", "none, optimizer_momentum=0.9"]
    fixed = small(optimizer=AdamW(weight_decay=(0.0, 0.1)), weight_decay=0.3)
    assert [*networks_of(fixed)] == ["no norm", "batch norm"]
