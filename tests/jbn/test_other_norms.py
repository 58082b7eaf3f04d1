"""Layers that the tools take for batch norms: those of Flax's class, or as one says."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

import jbn
import jbn.linen
import jbn.nnx

X = 3 + 2 * jax.random.normal(jax.random.key(0), (32, 4))


class NormAct(nn.Module):
    """Hands the options of its norm through, as many blocks do."""

    use_running_average: bool | None = None
    momentum: float = 0.99
    axis: int = -1
    epsilon: float = 1e-5

    @nn.compact
    def __call__(self, x):
        options = {"momentum": self.momentum, "axis": self.axis, "epsilon": self.epsilon}
        x = nn.Dense(4)(x)
        return nn.relu(jbn.linen.BatchNorm(self.use_running_average, **options)(x))


class NnxNormAct(nnx.Module):
    def __init__(self):
        rngs = nnx.Rngs(0)
        self.linear = nnx.Linear(4, 4, rngs=rngs)
        self.norm = jbn.nnx.BatchNorm(4, rngs=rngs)
        self.use_running_average, self.momentum, self.axis, self.epsilon = False, 0.9, -1, 1e-5

    def __call__(self, x):
        return nnx.relu(self.norm(self.linear(x)))


class Doubled(jbn.linen.BatchNorm):
    """A subclass that calls its base."""

    @nn.compact
    def __call__(self, x, use_running_average=None, **options):
        return 2 * super().__call__(x, use_running_average, **options)


class NnxDoubled(jbn.nnx.BatchNorm):
    def __call__(self, x, use_running_average=None, **options):
        return 2 * super().__call__(x, use_running_average, **options)


class Own(nn.Module):
    """No subclass, but the same attributes and variables."""

    use_running_average: bool = False
    axis: int = -1
    epsilon: float = 1e-3

    @nn.compact
    def __call__(self, x):
        mean = self.variable("batch_stats", "mean", jnp.zeros, x.shape[-1:])
        var = self.variable("batch_stats", "var", jnp.ones, x.shape[-1:])
        stats = jbn.RunningStats(mean.value, var.value)
        if self.use_running_average:
            return jbn.normalize(x, *stats, epsilon=self.epsilon)
        y, (mean.value, var.value) = jbn.batch_norm(
            x, jbn.init(x.shape[-1])[0], stats, epsilon=self.epsilon
        )
        return y


class NnxOwn(nnx.Module):
    def __init__(self):
        self.mean, self.var = nnx.BatchStat(jnp.zeros(4)), nnx.BatchStat(jnp.ones(4))
        self.use_running_average, self.axis, self.epsilon = False, -1, 1e-3

    def __call__(self, x):
        return jbn.batch_norm(x, *jbn.init(4), epsilon=self.epsilon)[0]


def test_the_layers_are_flaxs():
    layer = jbn.linen.BatchNorm(use_running_average=True)
    assert isinstance(layer, nn.BatchNorm)
    assert isinstance(jbn.nnx.BatchNorm(4, rngs=nnx.Rngs(0)), nnx.BatchNorm)
    assert jbn.linen.BatchNorm(True, (0, 1), 0.5).axis == (0, 1)  # fields in Flax's order


def test_blocks_that_hand_options_through_are_none():
    block = NormAct(False)
    variables = block.init(jax.random.key(0), X)
    new, report = jbn.linen.recalibrate(block, variables, [X])
    assert list(report) == ["BatchNorm_0"]
    _, report = jbn.linen.fold(NormAct(True), new, X)
    assert report.folded == {"BatchNorm_0": ("Dense_0",)}
    model = NnxNormAct()
    assert list(jbn.nnx.recalibrate(model, [X])) == ["norm"]
    _, report = jbn.nnx.fold(model, X)
    assert report.folded == {"norm": ("linear",)}


def test_a_subclass_that_calls_its_base_counts_once():
    layer = Doubled(use_running_average=False)
    new, report = jbn.linen.recalibrate(layer, layer.init(jax.random.key(0), X), [X])
    assert report[""].size == 32
    np.testing.assert_allclose(new["batch_stats"]["var"], X.var(0), rtol=1e-5)
    model = nn.Sequential([nn.Dense(4), Doubled(use_running_average=True)])
    variables = model.init(jax.random.key(0), X)
    variables["batch_stats"]["layers_1"]["mean"] += 1.0
    _, report = jbn.linen.fold(model, variables, X)
    assert report.folded == {"layers_1": ("layers_0",)}
    layer = NnxDoubled(4, rngs=nnx.Rngs(0))
    assert jbn.nnx.recalibrate(layer, [X])[""].size == 32
    np.testing.assert_allclose(layer.var[...], X.var(0), rtol=1e-5)


def test_a_layer_of_ones_own_is_named():
    variables = Own().init(jax.random.key(0), X)
    with pytest.raises(ValueError, match="no batch norm ran"):
        jbn.linen.recalibrate(Own(), variables, [X])
    options = {"is_norm": lambda layer: isinstance(layer, Own | NnxOwn)}
    new, _ = jbn.linen.recalibrate(Own(), variables, [X[:8], X[8:]], **options)
    np.testing.assert_allclose(new["batch_stats"]["var"], X.var(0), rtol=1e-5)
    model = NnxOwn()
    jbn.nnx.recalibrate(model, [X[:8], X[8:]], **options)
    np.testing.assert_allclose(model.mean[...], X.mean(0), rtol=1e-5)


@pytest.mark.parametrize("x", [X, np.asarray(X)])
def test_one_array_is_no_batches(x):
    layer, model = jbn.linen.BatchNorm(False), jbn.nnx.BatchNorm(4, rngs=nnx.Rngs(0))
    variables = layer.init(jax.random.key(0), X)
    for recalibrate in (
        lambda: jbn.linen.recalibrate(layer, variables, x),
        lambda: jbn.nnx.recalibrate(model, x),
        lambda: jbn.recalibrate(jbn.batch_moments, jbn.init(4)[1], x),
    ):
        with pytest.raises(TypeError, match=r"array of shape \(32, 4\).*\[x\]"):
            recalibrate()


def test_inputs_with_labels_are_explained():
    layer, model = jbn.linen.BatchNorm(False), jbn.nnx.BatchNorm(4, rngs=nnx.Rngs(0))
    variables, pairs = layer.init(jax.random.key(0), X), [(X, X[:, 0])]
    for recalibrate in (
        lambda: jbn.linen.recalibrate(layer, variables, pairs),
        lambda: jbn.nnx.recalibrate(model, pairs),
    ):
        with pytest.raises(Exception, match="x") as error:
            recalibrate()
        assert "(x for x, *_ in batches)" in error.value.__notes__[-1]


@pytest.mark.parametrize("norm", [nn.BatchNorm, jbn.linen.BatchNorm])
def test_folding_a_training_model_is_refused(norm):
    model = nn.Sequential([nn.Dense(4), norm(use_running_average=False)])
    variables = model.init(jax.random.key(0), X)
    with pytest.raises(ValueError, match="layers_1 normalises with the statistics of a batch"):
        jbn.linen.fold(model, variables, X)
