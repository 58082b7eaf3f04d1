"""A variant from outside: one file, no registration, and everything here takes it as its own."""

import importlib.util

import chex
import flax.linen as nn
import jax
import jax.numpy as jnp
import pytest
from flax import nnx

import jbn
import jbn.linen
import jbn.nnx

# Divides by the largest deviation from the mean, which nothing in jbn does.
SOURCE = """
from dataclasses import dataclass

import jax.numpy as jnp


@dataclass(frozen=True)
class Largest:
    power: float = 2.0

    def __call__(self, batch, affine, stats, *, epsilon):
        moments = batch.measure().moments()
        deviations = batch.mean(jnp.abs(batch.centre(moments)) ** 8) ** (self.power / 8)
        moments = moments._replace(var=deviations)
        return batch.normalize(moments, affine, epsilon), moments

    def population(self):
        return self
"""
X = 3 + jax.random.normal(jax.random.key(0), (24, 4))
KEY = jax.random.key(1)


@pytest.fixture(scope="module")
def own(tmp_path_factory):
    path = tmp_path_factory.mktemp("elsewhere") / "theirs.py"
    path.write_text(SOURCE)
    spec = importlib.util.spec_from_file_location("theirs", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.Largest()


NESTINGS = {
    "alone": lambda own: own,
    "Ghost": lambda own: jbn.Ghost(8, own),
    "Noisy": lambda own: jbn.Noisy(KEY, base=own),
    "Noisy of Ghost": lambda own: jbn.Noisy(KEY, base=jbn.Ghost(8, own)),
}
nestings = pytest.mark.parametrize("nest", NESTINGS.values(), ids=NESTINGS)


def right(x):
    """y and var of the whole batch, by plain numbers."""
    rest = x - x.mean(0, keepdims=True)
    var = jnp.mean(rest**8, axis=0) ** (1 / 4)
    return rest / jnp.sqrt(var + 1e-5)[None], var


@nestings
def test_layers_are_the_function(own, nest):
    variant = nest(own)
    y, stats = jbn.batch_norm(X, *jbn.init(4), variant=variant, momentum=0.0)
    layer = jbn.linen.BatchNorm(use_running_average=False, variant=variant, momentum=0.0)
    variables = layer.init(KEY, X)
    found, updates = jax.jit(lambda v: layer.apply(v, X, mutable=["batch_stats"]))(variables)
    chex.assert_trees_all_close((found, updates["batch_stats"]), (y, stats._asdict()), atol=1e-5)
    model = jbn.nnx.BatchNorm(4, variant=variant, momentum=0.0, rngs=nnx.Rngs(0))
    found = nnx.jit(lambda model: model(X))(model)
    chex.assert_trees_all_close((found, model.var[...]), (y, stats.var), atol=1e-5)
    if isinstance(variant, jbn.Ghost):
        groups = jnp.concatenate([right(group)[0] for group in X.reshape(3, 8, 4)])
        chex.assert_trees_all_close(y, groups, atol=1e-5)


@nestings
def test_tools_take_its_population(own, nest):
    y, var = right(X)
    plain = nn.BatchNorm(use_running_average=False)
    variables = plain.init(KEY, X)
    layer = jbn.linen.BatchNorm(use_running_average=False, variant=nest(own))
    new, _ = jbn.linen.recalibrate(layer, variables, [X])
    chex.assert_trees_all_close(new["batch_stats"]["var"], var, rtol=1e-4)
    inferred = layer.clone(use_running_average=True).apply(new, X)
    chex.assert_trees_all_close(inferred, y, atol=1e-4)

    model = nnx.Sequential(nnx.BatchNorm(4, rngs=nnx.Rngs(0)))
    jbn.nnx.replace_norms(model, variant=nest(own))
    jbn.nnx.recalibrate(model, [X])
    model.eval()
    chex.assert_trees_all_close(model(X), y, atol=1e-4)


@nestings
def test_a_recalibrated_model_of_it_folds(own, nest):
    def model(frozen):
        return nn.Sequential([nn.Dense(4), jbn.linen.BatchNorm(frozen, variant=nest(own))])

    variables = model(False).init(KEY, X)
    variables, _ = jbn.linen.recalibrate(model(False), variables, [X])
    folded, report = jbn.linen.fold(model(True), variables, X)
    assert report.folded == {"layers_1": ("layers_0",)}
    y, _ = right(nn.Dense(4).apply({"params": variables["params"]["layers_0"]}, X))
    chex.assert_trees_all_close(model(True).apply(folded, X), y, atol=1e-4)


def test_norms_of_others_run_it(own):
    plain = nn.BatchNorm(use_running_average=False)
    apply = jbn.linen.replace_norms(plain.apply, variant=own, momentum=0.0)
    y, updates = apply(plain.init(KEY, X), X, mutable=["batch_stats"])
    chex.assert_trees_all_close((y, updates["batch_stats"]["var"]), right(X), rtol=1e-4, atol=1e-5)
