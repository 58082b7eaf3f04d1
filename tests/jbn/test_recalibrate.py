"""Recalibrated statistics are those of all the data, whatever the batches."""

from operator import itemgetter

import chex
import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

import jbn
import jbn.linen
import jbn.nnx

SIZES = (32, 7, 32, 3, 7)


def ragged(seed=0, features=5, mean=1.0):
    """Batches of many sizes that differ in level, and all their rows in float64."""
    rng = np.random.default_rng(seed)
    levels = rng.normal(size=(len(SIZES), features))
    batches = [
        jnp.asarray(mean + level + 0.5 * rng.normal(size=(size, features)), jnp.float32)
        for level, size in zip(levels, SIZES)
    ]
    return batches, np.concatenate([np.asarray(batch, np.float64) for batch in batches])


def trained(features=5):
    rng = np.random.default_rng(1)
    return jbn.RunningStats(
        jnp.asarray(rng.normal(size=features), jnp.float32),
        jnp.asarray(rng.uniform(0.5, 2, features), jnp.float32),
    )


@pytest.mark.parametrize("mean", [1.0, 1e4, -3e5])
def test_the_functional_form_pools_ragged_batches(mean):
    batches, rows = ragged(mean=mean)
    old = {"first": trained(), "second": trained()}
    new, report = jbn.recalibrate(
        lambda x: {"first": jbn.batch_moments(x), "second": jbn.batch_moments(2 * x)}, old, batches
    )
    unit = np.spacing(np.float32(abs(mean)))
    np.testing.assert_allclose(new["first"].mean, rows.mean(0), rtol=1e-6)
    np.testing.assert_allclose(new["first"].var, rows.var(0), rtol=1e-5, atol=4 * unit)
    np.testing.assert_allclose(new["second"].var, 4 * rows.var(0), rtol=1e-5, atol=16 * unit)
    chex.assert_trees_all_equal_shapes_and_dtypes(new, old)
    drift = report["first"]
    deviation = np.sqrt(rows.var(0) + 1e-5)
    apart = np.abs(np.asarray(old["first"].mean) - rows.mean(0)) / deviation
    ratio = (np.asarray(old["first"].var) + 1e-5) / deviation**2
    np.testing.assert_allclose(drift.mean, apart.max(), rtol=1e-2)
    np.testing.assert_allclose(drift.var, np.maximum(ratio, 1 / ratio).max(), rtol=1e-2)
    assert drift.size == sum(SIZES)


def test_many_batches_at_a_large_mean_lose_nothing():
    rng = np.random.default_rng(0)
    batches = [jnp.asarray(1e4 + 0.1 * rng.normal(size=(8, 3)), jnp.float32) for _ in range(300)]
    rows = np.concatenate([np.asarray(batch, np.float64) for batch in batches])
    new, _ = jbn.recalibrate(jbn.batch_moments, trained(3), batches)
    np.testing.assert_allclose(new.mean, rows.mean(0), rtol=6e-8)
    np.testing.assert_allclose(new.var, rows.var(0), rtol=1e-4)


def test_without_evidence_a_feature_keeps_what_it_had():
    batches, rows = ragged()
    batches[0] = batches[0].at[3, 1].set(jnp.nan)
    old = trained()
    new, report = jbn.recalibrate(jbn.batch_moments, old, batches)
    np.testing.assert_allclose(new.mean[0], rows.mean(0)[0], rtol=1e-6)
    np.testing.assert_allclose(new.mean[1], rows[SIZES[0] :].mean(0)[1], rtol=1e-6)
    assert report[""].size == sum(SIZES) - SIZES[0]
    chex.assert_trees_all_equal(
        jbn.recalibrate(jbn.batch_moments, old, [jnp.full((4, 5), jnp.nan)])[0], old
    )


def test_wrong_arguments_are_explained():
    with pytest.raises(ValueError, match="held no batch.*new one"):
        jbn.recalibrate(jbn.batch_moments, trained(), iter(()))
    with pytest.raises(ValueError, match="structure"):
        jbn.recalibrate(jbn.batch_moments, {"norm": trained()}, ragged()[0])
    with pytest.raises(ValueError, match="epsilon"):
        jbn.recalibrate(jbn.batch_moments, trained(), ragged()[0], epsilon=0.0)


class Net(nn.Module):
    norm: type = jbn.linen.BatchNorm

    @nn.compact
    def __call__(self, x, train, mask=None):
        x = nn.Dense(6)(x)
        x = self.norm(use_running_average=not train, name="low")(x, mask=mask)
        x = nn.relu(x)
        return self.norm(name="high")(nn.Dense(4)(x), not train)


class Net2(nnx.Module):
    def __init__(self, norm=jbn.nnx.BatchNorm):
        rngs = nnx.Rngs(0)
        self.layers = nnx.List([nnx.Linear(5, 6, rngs=rngs), norm(6, rngs=rngs)])
        self.last = nnx.Linear(6, 4, rngs=rngs)
        self.high = norm(4, rngs=rngs, epsilon=0.5)

    def __call__(self, x):
        return self.high(self.last(nnx.relu(self.layers[1](self.layers[0](x)))))


def expected_two_layers(batches, kernels, epsilon=1e-5):
    """Population statistics of both layers in float64, each batch normalised by its own."""
    (k1, b1), (k2, b2) = (tuple(np.asarray(v, np.float64) for v in pair) for pair in kernels)
    low = [np.asarray(batch, np.float64) @ k1 + b1 for batch in batches]
    hidden = [np.maximum((h - h.mean(0)) / np.sqrt(h.var(0) + epsilon), 0) for h in low]
    low, high = np.concatenate(low), np.concatenate([h @ k2 + b2 for h in hidden])
    return (low.mean(0), low.var(0)), (high.mean(0), high.var(0))


@pytest.mark.parametrize("norm", [jbn.linen.BatchNorm, nn.BatchNorm])
@pytest.mark.parametrize("mean", [1.0, 1e4])
def test_linen_models_in_one_sweep(norm, mean):
    batches, _ = ragged(mean=mean)
    model = Net(norm)
    with jax.numpy_rank_promotion("allow"):
        variables = model.init(jax.random.key(0), batches[0], train=True)
        before = jax.tree.map(jnp.copy, variables)
        new, report = jbn.linen.recalibrate(model, variables, iter(batches), train=True)
    chex.assert_trees_all_equal(variables, before)
    chex.assert_trees_all_equal(new["params"], variables["params"])
    chex.assert_trees_all_equal_shapes_and_dtypes(new, variables)
    params = variables["params"]
    kernels = [(params[d]["kernel"], params[d]["bias"]) for d in ("Dense_0", "Dense_1")]
    tolerance = 2e-3 if mean == 1e4 else 1e-4  # of the float32 product before the norm
    # At 1e4 what Flax's own layer sends upwards is noise.
    names = ("low",) if mean == 1e4 and norm is nn.BatchNorm else ("low", "high")
    for name, (m, v) in zip(names, expected_two_layers(batches, kernels)):
        np.testing.assert_allclose(new["batch_stats"][name]["mean"], m, rtol=1e-4, atol=tolerance)
        np.testing.assert_allclose(
            new["batch_stats"][name]["var"], v, rtol=1e-2 if mean > 1 else 1e-4
        )
    assert list(report) == ["low", "high"]
    assert report["high"].size == sum(SIZES)


@pytest.mark.parametrize("norm", [jbn.nnx.BatchNorm, nnx.BatchNorm])
def test_nnx_models_in_one_sweep(norm):
    batches, _ = ragged()
    with jax.numpy_rank_promotion("allow"):
        model = Net2(norm)
        report = jbn.nnx.recalibrate(model, batches)
    kernels = [(d.kernel[...], d.bias[...]) for d in (model.layers[0], model.last)]
    for layer, (m, v) in zip((model.layers[1], model.high), expected_two_layers(batches, kernels)):
        np.testing.assert_allclose(layer.mean[...], m, rtol=1e-4, atol=1e-4)
        np.testing.assert_allclose(layer.var[...], v, rtol=1e-4)
    assert sorted(report) == ["high", "layers/1"]
    var = np.asarray(model.high.var[...], np.float64)
    ratio = 1.5 / (var + 0.5)  # the layer's own epsilon
    np.testing.assert_allclose(report["high"].var, np.maximum(ratio, 1 / ratio).max(), rtol=1e-4)
    assert type(model.high) is norm
    assert not nnx.state(model, lambda path, _: "recorded_mean" in path)


def failing(batches):
    yield from batches[:2]
    raise OSError("disk full")


def test_nothing_changes_if_the_batches_fail():
    batches, _ = ragged()
    variables = Net().init(jax.random.key(0), batches[0], train=True)
    before = jax.tree.map(jnp.copy, variables)
    with pytest.raises(OSError, match="disk full"):
        jbn.linen.recalibrate(Net(), variables, failing(batches), train=True)
    chex.assert_trees_all_equal(variables, before)

    model = Net2()
    before = jax.tree.map(jnp.copy, nnx.state(model))
    with pytest.raises(OSError, match="disk full"):
        jbn.nnx.recalibrate(model, failing(batches))
    chex.assert_trees_all_equal(nnx.state(model), before)


def test_inference_mode_is_refused():
    batches, _ = ragged()
    variables = Net().init(jax.random.key(0), batches[0], train=True)
    with pytest.raises(ValueError, match="train=True"):
        jbn.linen.recalibrate(Net(), variables, batches, train=False)
    model = Net2()
    model.eval()
    with pytest.raises(ValueError, match=r"model\.train\(\)"):
        jbn.nnx.recalibrate(model, batches)


def test_a_frozen_layer_stays_frozen():
    class Frozen(nn.Module):
        @nn.compact
        def __call__(self, x):
            x = jbn.linen.BatchNorm(use_running_average=True, name="frozen")(x)
            return jbn.linen.BatchNorm(use_running_average=False, name="free")(x)

    batches, _ = ragged()
    variables = Frozen().init(jax.random.key(0), batches[0])
    new, report = jbn.linen.recalibrate(Frozen(), variables, batches)
    assert list(report) == ["free"]
    chex.assert_trees_all_equal(new["batch_stats"]["frozen"], variables["batch_stats"]["frozen"])

    model = Net2()
    model.layers[1].use_running_average = True
    report = jbn.nnx.recalibrate(model, batches)
    assert list(report) == ["high"]
    np.testing.assert_array_equal(model.layers[1].mean[...], 0)


def test_masks_axes_and_several_calls_count():
    class Odd(nn.Module):
        @nn.compact
        def __call__(self, x, mask):
            norm = jbn.linen.BatchNorm(use_running_average=False, axis=1)
            return norm(norm(x, mask=mask), mask=mask)

    rng = np.random.default_rng(0)
    batches = [
        (jnp.asarray(rng.normal(3, 2, (n, 5, 4)), jnp.float32), jnp.asarray(rng.random(n) < 0.6))
        for n in (8, 5)
    ]
    variables = Odd().init(jax.random.key(0), *batches[0])
    new, report = jbn.linen.recalibrate(
        Odd(), variables, batches, method=lambda model, batch: model(*batch)
    )
    seen = []
    for x, mask in batches:
        rows = np.asarray(x, np.float64)[np.asarray(mask)].transpose(0, 2, 1).reshape(-1, 5)
        seen += [rows, (rows - rows.mean(0)) / np.sqrt(rows.var(0) + 1e-5)]
    rows = np.concatenate(seen)
    stats = new["batch_stats"]["BatchNorm_0"]
    np.testing.assert_allclose(stats["mean"], rows.mean(0), rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(stats["var"], rows.var(0), rtol=1e-5)
    assert report["BatchNorm_0"].size == len(rows)


def test_lifted_layers_are_heard():
    class Block(nn.Module):
        @nn.compact
        def __call__(self, x, _):
            x = jbn.linen.BatchNorm(use_running_average=False)(nn.Dense(5)(x))
            return x, None

    class Lifted(nn.Module):
        @nn.compact
        def __call__(self, x):
            x = nn.remat(jbn.linen.BatchNorm)(use_running_average=False, name="remat")(x)
            axes = {"params": 0, "batch_stats": 0}
            stack = nn.scan(Block, variable_axes=axes, split_rngs={"params": True}, length=3)
            return stack(name="stack")(x, None)[0]

    class Loop(nn.Module):
        @nn.compact
        def __call__(self, x):
            x = jbn.linen.BatchNorm(use_running_average=False, name="remat")(x)
            for i in range(3):
                x, _ = Block(name=f"block_{i}")(x, None)
            return x

    batches, _ = ragged()
    variables = Lifted().init(jax.random.key(0), batches[0])
    new, report = jbn.linen.recalibrate(Lifted(), variables, batches)
    assert sorted(report) == ["remat", "stack/BatchNorm_0"]

    def unstack(tree):
        blocks = {f"block_{i}": jax.tree.map(itemgetter(i), tree["stack"]) for i in range(3)}
        return {**{k: v for k, v in tree.items() if k != "stack"}, **blocks}

    loop = {name: unstack(tree) for name, tree in variables.items()}
    expected, _ = jbn.linen.recalibrate(Loop(), loop, batches)
    chex.assert_trees_all_close(
        unstack(new["batch_stats"]), expected["batch_stats"], rtol=1e-5, atol=1e-5
    )
