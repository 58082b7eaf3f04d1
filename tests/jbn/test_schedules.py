"""Schedules of variants: the layers count the steps that a loop by hand would count."""

from dataclasses import dataclass

import chex
import flax.linen as nn
import jax
import jax.numpy as jnp
import pytest
from flax import nnx

import jbn
import jbn.linen
import jbn.nnx

# Batch norm twice, then wider bounds: five batches meet four different variants.
SCHEDULE = jbn.RenormSchedule(warmup=1, r_max=1.5, r_steps=4, d_max=0.4, d_steps=2)
BATCHES = jnp.linspace(1, 3, 5)[:, None, None] * (
    1 + jax.random.normal(jax.random.key(0), (5, 8, 3))
)


@dataclass(frozen=True)
class GhostsOf:
    """A schedule of one's own: groups, each normalised by another schedule's variant."""

    schedule: jbn.Schedule = SCHEDULE

    def at(self, step):
        return jbn.Ghost(4, self.schedule.at(step))

    def population(self):
        return self.schedule.population()


schedules = pytest.mark.parametrize("schedule", [SCHEDULE, GhostsOf()], ids=["Renorm", "Ghost"])


def by_hand(schedule, batches=BATCHES):
    """The outputs of a loop over `batch_norm`, and the last statistics."""
    affine, stats = jbn.init(3)
    outputs = []
    for step, x in enumerate(batches):
        variant = schedule.at(step)
        y, stats = jbn.batch_norm(x, affine, stats, variant=variant, momentum=0.9)
        outputs.append(y)
    return jnp.stack(outputs), stats


def linen_layer(variant=SCHEDULE):
    return jbn.linen.BatchNorm(use_running_average=False, momentum=0.9, variant=variant)


def nnx_layer(variant=SCHEDULE):
    return jbn.nnx.BatchNorm(3, momentum=0.9, variant=variant, rngs=nnx.Rngs(0))


@schedules
def test_linen_counts_its_steps(schedule):
    layer = linen_layer(schedule)
    variables = layer.init(jax.random.key(0), BATCHES[0])
    assert variables["batch_stats"]["steps"] == 0  # nothing was trained yet

    def step(batch_stats, x):
        y, updates = layer.apply(
            {**variables, "batch_stats": batch_stats}, x, mutable=["batch_stats"]
        )
        return updates["batch_stats"], y

    found, y = jax.jit(lambda stats: jax.lax.scan(step, stats, BATCHES))(variables["batch_stats"])
    right, stats = by_hand(schedule)
    chex.assert_trees_all_close(y, right, atol=1e-5)
    chex.assert_trees_all_close(found, {**stats._asdict(), "steps": jnp.int32(5)}, rtol=1e-5)
    uncounted = {**variables, "batch_stats": stats._asdict()}
    inferred = layer.clone(use_running_average=True).apply(uncounted, BATCHES[0])
    chex.assert_trees_all_close(inferred, jbn.normalize(BATCHES[0], *stats), atol=1e-6)


@schedules
def test_nnx_counts_its_steps(schedule):
    layer = nnx_layer(schedule)
    step = nnx.jit(lambda layer, x: layer(x))
    y = jnp.stack([step(layer, x) for x in BATCHES])
    right, stats = by_hand(schedule)
    chex.assert_trees_all_close(y, right, atol=1e-5)
    chex.assert_trees_all_close((layer.mean[...], layer.var[...]), tuple(stats), rtol=1e-5)
    assert (layer.steps[...], layer.steps[...].dtype) == (5, jnp.int32)
    layer.eval()
    layer(BATCHES[0])
    assert layer.steps[...] == 5  # inference is no step


def test_only_a_schedule_adds_a_count_to_the_state():
    for variant in (jbn.Renorm(), jbn.Standard()):
        stats = linen_layer(variant).init(jax.random.key(0), BATCHES[0])["batch_stats"]
        assert set(stats) == {"mean", "var"}
        assert len(jax.tree.leaves(nnx.state(nnx_layer(variant), nnx.BatchStat))) == 2


def test_stacked_layers_count_each_for_itself():
    axes = {"params": 0, "batch_stats": 0}
    stack = nn.vmap(jbn.linen.BatchNorm, variable_axes=axes, split_rngs={"params": True})
    model = stack(use_running_average=False, momentum=0.9, variant=SCHEDULE)
    variables = model.init(jax.random.key(0), BATCHES)
    stats = {**variables["batch_stats"], "steps": jnp.arange(5, dtype=jnp.int32)}
    y, updates = model.apply({**variables, "batch_stats": stats}, BATCHES, mutable=["batch_stats"])
    chex.assert_trees_all_equal(updates["batch_stats"]["steps"], jnp.arange(1, 6))
    for step, (x, found) in enumerate(zip(BATCHES, y)):
        right, _ = jbn.batch_norm(x, *jbn.init(3), variant=SCHEDULE.at(step))
        chex.assert_trees_all_close(found, right, atol=1e-5)

    make = nnx.vmap(lambda rngs: nnx.BatchNorm(3, momentum=0.9, rngs=rngs))
    ensemble = make(nnx.Rngs(0).split(5))
    jbn.nnx.replace_norms(ensemble, variant=SCHEDULE)
    ensemble.steps[...] = jnp.arange(5, dtype=jnp.int32)
    found = nnx.vmap(lambda layer, x: layer(x))(ensemble, BATCHES)
    chex.assert_trees_all_close(found, y, atol=1e-5)
    chex.assert_trees_all_equal(ensemble.steps[...], jnp.arange(1, 6))


def test_recalibration_is_no_step_and_measures_the_population():
    layer, model = linen_layer(), nnx_layer()
    variables = layer.init(jax.random.key(0), BATCHES[0])
    for x in BATCHES:
        _, updates = layer.apply(variables, x, mutable=["batch_stats"])
        variables = {**variables, **updates}
        model(x)
    variables, _ = jbn.linen.recalibrate(layer, variables, [BATCHES[0]])
    jbn.nnx.recalibrate(model, [BATCHES[0]])
    right = jbn.batch_moments(BATCHES[0])
    found = variables["batch_stats"]
    chex.assert_trees_all_close(found["var"], right.var, rtol=1e-5)
    chex.assert_trees_all_close(model.var[...], right.var, rtol=1e-5)
    assert found["steps"] == model.steps[...] == 5


def test_norms_of_a_model_that_knows_no_schedule():
    model = nn.BatchNorm(use_running_average=False, momentum=0.9)
    variables = model.init(jax.random.key(0), BATCHES[0])
    apply = jbn.linen.replace_norms(model.apply, variant=SCHEDULE)
    for x in BATCHES:
        y, updates = apply(variables, x, mutable=["batch_stats"])
        variables = {**variables, **updates}
    right, _ = by_hand(SCHEDULE)
    chex.assert_trees_all_close(y, right[-1], atol=1e-5)
    assert variables["batch_stats"]["steps"] == 5


def test_a_count_stays_at_its_largest():
    layer = linen_layer()
    variables = layer.init(jax.random.key(0), BATCHES[0])
    variables["batch_stats"]["steps"] = jnp.int32(2**31 - 1)
    _, updates = layer.apply(variables, BATCHES[0], mutable=["batch_stats"])
    assert updates["batch_stats"]["steps"] == 2**31 - 1


def test_rematerialisation_counts_once():
    with nnx.var_defaults(ref=True):
        layer = nnx_layer()

    @jax.jit
    def gradient(x):
        return jax.grad(jax.checkpoint(lambda x: jnp.sum(jnp.sin(layer(x)))))(x)

    gradient(BATCHES[0])
    assert layer.steps[...] == 1


def test_where_nothing_counts_a_schedule_is_refused():
    advice = "got the schedule RenormSchedule.*: take its at"
    for call in (
        lambda: jbn.batch_norm(BATCHES[0], *jbn.init(3), variant=SCHEDULE),
        lambda: jbn.Ghost(4, SCHEDULE),
    ):
        with pytest.raises(TypeError, match=advice):
            call()
    with pytest.raises(ValueError, match="no count of steps .* constructor or replace_norms"):
        nnx_layer(jbn.Standard())(BATCHES[0], variant=SCHEDULE)
    for bad in (jnp.ones(3), jbn.RenormSchedule):  # an array has an `at`, too
        with pytest.raises(TypeError, match="variant must be a variant"):
            nnx_layer(bad)(BATCHES[0])
