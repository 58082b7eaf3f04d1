"""Inference of every variant: what recalibration measures and the experiments evaluate with."""

from dataclasses import dataclass
from functools import partial

import chex
import flax.linen as nn
import jax
import jax.numpy as jnp
import pytest
from flax import nnx

import jbn
import jbn.linen
import jbn.nnx

X = 3 + jax.random.normal(jax.random.key(0), (48, 5))


@dataclass(frozen=True)
class Halved:
    """Not registered with JAX: divides by half the second moment."""

    def __call__(self, batch, affine, stats, *, epsilon):
        second = batch.mean(jnp.square(batch.x)) / 2
        moments = jbn.Moments(jnp.zeros_like(second), second, jnp.full_like(second, 48))
        return batch.normalize(moments, affine, epsilon), moments

    def population(self):
        return self


@dataclass(frozen=True)
class Silent:
    """Does not say what inference does."""

    def __call__(self, batch, affine, stats, *, epsilon):
        return jbn.Standard()(batch, affine, stats, epsilon=epsilon)


OTHERS = {
    jbn.Standard(): [jbn.Ghost(8), jbn.Renorm(1.5, 0.5), jbn.Running(), jbn.Detached()],
    jbn.Uncentered(): [jbn.Uncentered(), jbn.Ghost(8, jbn.Uncentered())],
    Halved(): [Halved(), jbn.Ghost(8, Halved())],
}
PAIRS = [(variant, population) for population, variants in OTHERS.items() for variant in variants]
by_name = pytest.mark.parametrize(("variant", "population"), PAIRS, ids=str)


class Linen(nn.Module):
    variant: jbn.Variant
    momentum: float = 0.9

    @nn.compact
    def __call__(self, x, train=True):
        norm = lambda x: jbn.linen.BatchNorm(  # noqa: E731
            not train, variant=self.variant, momentum=self.momentum
        )(x)
        return norm(jnp.tanh(norm(x)))


class Nnx(nnx.Module):
    def __init__(self, variant, momentum=0.9):
        options = {"variant": variant, "momentum": momentum, "rngs": nnx.Rngs(0)}
        self.low, self.high = jbn.nnx.BatchNorm(5, **options), jbn.nnx.BatchNorm(5, **options)

    def __call__(self, x):
        return self.high(jnp.tanh(self.low(x)))


def linen(variant, population):
    variables = Linen(variant).init(jax.random.key(0), X)
    trained, right = Linen(population, momentum=0.0).apply(variables, X, mutable=["batch_stats"])
    new, _ = jbn.linen.recalibrate(Linen(variant), variables, [X])
    return (
        Linen(variant).apply(new, X, train=False),
        new["batch_stats"],
        trained,
        right["batch_stats"],
    )


def in_nnx(variant, population):
    model, right = Nnx(variant), Nnx(population, momentum=0.0)
    trained = right(X)
    jbn.nnx.recalibrate(model, [X])
    model.eval()
    return model(X), nnx.state(model, nnx.BatchStat), trained, nnx.state(right, nnx.BatchStat)


@by_name
@pytest.mark.parametrize("front", [linen, in_nnx])
def test_a_recalibrated_model_infers_what_its_population_variant_trains(variant, population, front):
    assert variant.population() == population
    y, stats, trained, right = front(variant, population)
    chex.assert_trees_all_close(stats, right, rtol=1e-5, atol=1e-6)
    chex.assert_trees_all_close(y, trained, atol=2e-5)


def test_a_variant_given_to_the_call_counts():
    layer = jbn.linen.BatchNorm(use_running_average=False)
    variables = layer.init(jax.random.key(0), X)
    noisy = jbn.Noisy(jax.random.key(1), base=jbn.Uncentered())
    new, _ = jbn.linen.recalibrate(layer, variables, [X[:8], X[8:]], variant=noisy)
    second = jnp.mean(X**2, axis=0)
    chex.assert_trees_all_close(new["batch_stats"]["var"], second, rtol=1e-5)
    model = jbn.nnx.BatchNorm(5, rngs=nnx.Rngs(0))
    jbn.nnx.recalibrate(model, [X], call=lambda model, x: model(x, variant=noisy))
    chex.assert_trees_all_close(model.var[...], second, rtol=1e-5)


@pytest.mark.parametrize("variant", [Silent(), jbn.Ghost(8, Silent())])
def test_a_variant_without_an_answer_is_refused_by_name(variant):
    y, _ = jbn.batch_norm(X, *jbn.init(5), variant=Silent())  # trains
    chex.assert_shape(y, X.shape)
    variables = Linen(variant).init(jax.random.key(0), X)
    for recalibrate in (
        lambda: jbn.linen.recalibrate(Linen(variant), variables, [X]),
        lambda: jbn.nnx.recalibrate(Nnx(variant), [X]),
    ):
        with pytest.raises(TypeError, match=r"Silent\(\) does not say.*method population\(self\)"):
            recalibrate()


def test_axis_names_reach_a_variant_as_they_are():
    @dataclass(frozen=True)
    class Pmean:
        def __call__(self, batch, affine, stats, *, epsilon):
            assert batch.axis_index_groups == ((0, 1), (2, 3))
            total = jax.lax.pmean(jnp.mean(batch.x, axis=0), batch.axis_name)
            moments = jbn.Moments(total, jnp.ones_like(total), jnp.ones_like(total))
            return batch.normalize(moments, affine, epsilon), moments

    def run(x, variant):
        options = {"axis_name": "d", "axis_index_groups": [[0, 1], [2, 3]], "momentum": 0.0}
        return jbn.batch_norm(x, *jbn.init(5), variant=variant, **options)[1].mean

    for variant in (Pmean(), jbn.Noisy(jax.random.key(2), base=Pmean())):
        mean = jax.vmap(partial(run, variant=variant), axis_name="d")(X.reshape(4, 12, 5))
        chex.assert_trees_all_close(mean[2], X.mean(0), rtol=1e-5)


def test_a_mean_of_ones_own_is_over_mask_devices_and_groups():
    @dataclass(frozen=True)
    class Mean:
        def __call__(self, batch, affine, stats, *, epsilon):
            moments = batch.measure().moments()
            cubes = batch.mean(batch.centre(moments) ** 3)
            return batch.normalize(moments, affine, epsilon), moments._replace(var=cubes)

    mask = jax.random.bernoulli(jax.random.key(3), 0.6, (48,))

    def run(x, mask, **options):
        given = {"variant": Mean(), "mask": mask, "momentum": 0.0, **options}
        return jbn.batch_norm(x, *jbn.init(5), **given)[1].var

    def right(x, mask):
        return jnp.mean((x[mask] - x[mask].mean(0, keepdims=True)) ** 3, axis=0)

    chex.assert_trees_all_close(run(X, mask), right(X, mask), atol=1e-5)
    for groups, size in ((None, 48), ([[0, 1], [2, 3]], 24)):
        options = {"axis_name": "d", "axis_index_groups": groups}
        split = jax.vmap(lambda x, m, options=options: run(x, m, **options), axis_name="d")
        found = split(X.reshape(4, 12, 5), mask.reshape(4, 12))
        chex.assert_trees_all_close(found[0], right(X[:size], mask[:size]), atol=1e-5)
        chex.assert_trees_all_close(found[3], right(X[-size:], mask[-size:]), atol=1e-5)
