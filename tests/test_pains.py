"""Pains of users of other batch norms, by the numbers of docs/pains.md: not here."""

import re
from dataclasses import dataclass
from functools import partial
from pathlib import Path

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

ROOT = Path(__file__).parent.parent
FEATURES = 4


def draw(key, shape=(16, FEATURES)):
    """A batch, an affine map, running statistics and a cotangent, none of them 0 or 1."""
    keys = jax.random.split(key, 5)
    x, ct = 2 * jax.random.normal(keys[0], shape) + 3, jax.random.normal(keys[1], shape)
    affine = jbn.Affine(*(1 + 0.3 * jax.random.normal(keys[2], (2, shape[-1]))))
    stats = jbn.RunningStats(
        jax.random.normal(keys[3], shape[-1:]), 0.5 + jax.random.uniform(keys[4], shape[-1:])
    )
    return x, affine, stats, ct


def linen(x, affine, stats, *, train=True, **options):
    layer = jbn.linen.BatchNorm(use_running_average=not train, **options)
    variables = {"params": affine._asdict(), "batch_stats": stats._asdict()}
    y, moved = layer.apply(variables, x, mutable=["batch_stats"])
    return y, jbn.RunningStats(**moved["batch_stats"])


def in_nnx(x, affine, stats, *, train=True, **options):
    layer = jbn.nnx.BatchNorm(
        x.shape[-1], use_running_average=not train, rngs=nnx.Rngs(0), **options
    )
    for name, value in (affine._asdict() | stats._asdict()).items():
        getattr(layer, name).set_value(value)
    return layer(x), jbn.RunningStats(layer.mean.get_value(), layer.var.get_value())


def function(x, affine, stats, *, train=True, **options):
    if train:
        return jbn.batch_norm(x, affine, stats, **options)
    return jbn.normalize(x, *stats, *affine), stats


layers = pytest.mark.parametrize("layer", [linen, in_nnx])
fronts = pytest.mark.parametrize("front", [function, linen, in_nnx])


@pytest.mark.parametrize("momentum", [0.0, 0.9, 0.99, 0.999])
@pytest.mark.parametrize("schedule", [jbn.warmup_momentum, jbn.debiased_momentum])
def test_pain_1_inference_equals_training_from_the_first_step(key, schedule, momentum):
    x, affine, stats, _ = draw(key)
    for step in range(10):
        y, stats = jbn.batch_norm(x, affine, stats, momentum=schedule(step, momentum))
        chex.assert_trees_all_close(jbn.normalize(x, *stats, *affine), y, atol=1e-5)


@fronts
def test_pain_3_a_step_has_the_same_structure_in_both_modes(front, key):
    x, affine, stats, _ = draw(key)
    trained, inferred = (front(x, affine, stats, train=train) for train in (True, False))
    chex.assert_trees_all_equal_shapes_and_dtypes(trained, inferred)
    chex.assert_trees_all_equal(inferred[1], stats)


@dataclass(frozen=True)
class OverNMinusOne:
    """The running variance that PyTorch keeps."""

    def __call__(self, batch, affine, stats, *, epsilon):
        y, moments = jbn.Standard()(batch, affine, stats, epsilon=epsilon)
        return y, jbn.bessel_correction(moments)


@fronts
def test_pains_5_and_11_a_hundred_steps_follow_pytorch(front, key):
    _, affine, stats, _ = draw(key)
    mean, var = (np.asarray(v, np.float64) for v in stats)
    torch_momentum = 0.1
    for step in range(100):
        x = draw(jax.random.fold_in(key, step))[0] + step / 10
        _, stats = front(x, affine, stats, momentum=1 - torch_momentum, variant=OverNMinusOne())
        seen = np.asarray(x, np.float64)
        mean += torch_momentum * (seen.mean(0) - mean)
        var += torch_momentum * (seen.var(0, ddof=1) - var)
    np.testing.assert_allclose(stats.mean, mean, rtol=1e-6)
    np.testing.assert_allclose(stats.var, var, rtol=1e-6)


def test_pain_6_a_lost_update_is_noticed(key):
    rngs = nnx.Rngs(0)
    net = nnx.Sequential(nnx.Linear(4, 3, rngs=rngs), jbn.nnx.BatchNorm(3, rngs=rngs))
    x = draw(key)[0]
    jax.jit(lambda net, x: net(x))(net, x)  # on a copy: what it stores is gone
    with pytest.raises(ValueError, match=r"never trained.*'layers/1'"):
        jbn.nnx.fold(net, x)
    drift = jbn.nnx.recalibrate(net, [x])["layers/1"]
    assert max(drift.mean, drift.var) > 2
    assert max(jbn.nnx.recalibrate(net, [x])["layers/1"][:2]) < 1.001
    before = net.layers[1].mean[...]
    nnx.jit(lambda net, x: net(x))(net, 5 + x)  # stores what it should
    assert np.all(np.asarray(net.layers[1].mean[...] != before))


@layers
def test_pain_12_two_calls_before_one_gradient(layer, key):
    a, affine, stats, ct = draw(key)
    b = draw(jax.random.fold_in(key, 1))[0]

    def both(affine, a, b):
        ya, moved = layer(a, affine, stats)
        yb, _ = layer(b, affine, moved)
        return jnp.sum(jnp.tanh(ya) * ct) + jnp.sum(jnp.tanh(yb) * ct)

    def one(affine, x):
        return jnp.sum(jnp.tanh(layer(x, affine, stats)[0]) * ct)

    of_affine, of_a, of_b = jax.grad(both, (0, 1, 2))(affine, a, b)
    (affine_a, only_a), (affine_b, only_b) = (jax.grad(one, (0, 1))(affine, x) for x in (a, b))
    chex.assert_trees_all_close((of_a, of_b), (only_a, only_b), atol=1e-6)
    chex.assert_trees_all_close(of_affine, jax.tree.map(jnp.add, affine_a, affine_b), atol=1e-5)


def test_pain_12_one_nnx_layer_called_twice(key):
    a, _, _, ct = draw(key)
    b = draw(jax.random.fold_in(key, 1))[0]
    layer = jbn.nnx.BatchNorm(FEATURES, momentum=0.9, rngs=nnx.Rngs(0))
    grads = nnx.grad(lambda layer: jnp.sum((layer(a) + layer(b)) * ct))(layer)
    np.testing.assert_allclose(grads.bias.get_value(), 2 * ct.sum(0), rtol=1e-5, atol=1e-5)
    expected = jbn.init(FEATURES)[1]
    for x in (a, b):
        expected = jbn.update_running(expected, jbn.batch_moments(x), momentum=0.9)
    np.testing.assert_allclose(layer.mean.get_value(), expected.mean, rtol=1e-5)


@layers
def test_pain_13_layers_take_every_derivative(layer, key):
    x, affine, stats, ct = draw(key, (5, 3))

    def loss(x):
        return jnp.sum(jnp.sin(layer(x, affine, stats)[0]) * ct)

    def plain(x):
        return jnp.sum(jnp.sin(jbn.batch_norm(x, affine, stats)[0]) * ct)

    for derivative in (jax.jacrev, jax.jacfwd, jax.hessian):
        chex.assert_trees_all_close(derivative(loss)(x), derivative(plain)(x), atol=1e-5)
    shapes = jax.eval_shape(lambda x: layer(x, affine, stats), x)
    chex.assert_trees_all_equal_shapes_and_dtypes(shapes, (x, stats))


@fronts
def test_pain_14_small_groups_of_a_large_batch(front, key):
    x, affine, stats, ct = draw(key)
    ghost = {"variant": jbn.Ghost(4), "momentum": 0.9}

    def one_by_one(x):
        return jnp.concatenate([front(part, affine, stats)[0] for part in jnp.split(x, 4)])

    y, moved = front(x, affine, stats, **ghost)
    chex.assert_trees_all_close(y, one_by_one(x), atol=1e-6)
    whole = jbn.batch_norm(x, affine, stats, momentum=0.9)[1]
    chex.assert_trees_all_close(moved, whole, rtol=1e-6, atol=1e-6)
    dx = jax.grad(lambda x: jnp.sum(front(x, affine, stats, **ghost)[0] * ct))(x)
    chex.assert_trees_all_close(dx, jax.grad(lambda x: jnp.sum(one_by_one(x) * ct))(x), atol=1e-5)
    if front is not function:
        alone, _ = front(x[:1], affine, stats, train=False, **ghost)
        chex.assert_trees_all_close(alone, jbn.normalize(x[:1], *stats, *affine), atol=1e-6)


@layers
def test_pain_16_a_half_precision_layer_subtracts_the_mean_before_it_rounds(layer, key):
    x = 50 + jax.random.normal(key, (4096, FEATURES))
    stats = jbn.RunningStats(x.mean(0), x.var(0))
    y, kept = layer(x, jbn.init(FEATURES)[0], stats, train=False, dtype=jnp.bfloat16)
    assert y.dtype == jnp.bfloat16
    chex.assert_trees_all_equal(kept, stats)
    wide = np.asarray(y, np.float64)
    np.testing.assert_allclose(wide.mean(0), 0, atol=3e-4)
    np.testing.assert_allclose(wide.std(0), 1, atol=3e-4)


@pytest.mark.parametrize("jit", [False, True])
def test_pain_20_nnx_names_an_unbound_axis(jit, key):
    layer = jbn.nnx.BatchNorm(FEATURES, axis_name="dta", rngs=nnx.Rngs(0))
    call = nnx.jit(lambda layer, x: layer(x)) if jit else lambda layer, x: layer(x)
    with pytest.raises(NameError, match="axis_name='dta' is not bound.*shard_map, vmap or pmap"):
        call(layer, draw(key)[0])


@fronts
def test_pain_22_a_traced_flag_chooses_the_mode(front, key):
    x, affine, stats, _ = draw(key)
    chex.clear_trace_counter()

    @jax.jit
    @chex.assert_max_traces(n=1)
    def step(train, x, stats):
        modes = (partial(front, train=False), partial(front, train=True))
        return jax.lax.switch(train.astype(int), modes, x, affine, stats)

    for train in (True, False):
        expected = front(x, affine, stats, train=train)
        chex.assert_trees_all_close(step(jnp.asarray(train), x, stats), expected, atol=1e-6)


def test_pain_22_remat_takes_a_static_flag(key):
    class Net(nn.Module):
        @nn.compact
        def __call__(self, x, train):
            return jbn.linen.BatchNorm(use_running_average=not train)(x)

    x = draw(key)[0]
    net, remat = Net(), nn.remat(Net, static_argnums=(2,))()  # counted from self
    variables = net.init(key, x, True)
    for train in (True, False):
        results = [m.apply(variables, x, train, mutable=["batch_stats"]) for m in (net, remat)]
        chex.assert_trees_all_close(*results, atol=1e-6)


@pytest.mark.parametrize("features", [1, 3])
def test_pain_23_very_long_batches(features, key):
    x, affine, stats, _ = draw(key, (200_000, features))
    wide, scale, bias = (np.asarray(v, np.float64) for v in (x, *affine))
    y, moved = jbn.batch_norm(x, affine, stats, momentum=0.0)
    expected = (wide - wide.mean(0)) / np.sqrt(wide.var(0) + 1e-5) * scale + bias
    np.testing.assert_allclose(y, expected, atol=1e-5)
    np.testing.assert_allclose(moved.var, wide.var(0), rtol=1e-5)
    np.testing.assert_allclose(jbn.normalize(x, *moved, *affine), expected, atol=1e-5)


def test_pain_25_one_layer_with_the_statistics_of_several_domains(key):
    real, affine, stats, _ = draw(key)
    fake = draw(jax.random.fold_in(key, 1))[0] + 7
    kept = {"real": stats, "fake": stats}
    for domain, x in {"real": real, "fake": fake}.items():
        y, kept[domain] = linen(x, affine, kept[domain], momentum=0.9)
        chex.assert_trees_all_close(y, jbn.batch_norm(x, affine, stats)[0], atol=1e-6)
    assert np.all(np.asarray(kept["fake"].mean - kept["real"].mean) > 0.5)
    # A call that must leave no trace, in the name of either domain.
    chex.assert_trees_all_equal(linen(fake, affine, stats, momentum=1.0)[1], stats)

    # Both into one average: pooled, the order does not matter; one after the other, it does.
    def together(*parts):
        moments = map(jbn.batch_moments, parts)
        pooled = jbn.pool_moments(jbn.Moments(*map(jnp.stack, zip(*moments))))
        return jbn.update_running(stats, pooled, momentum=0.9)

    whole = jbn.batch_norm(jnp.concatenate([real, fake]), affine, stats, momentum=0.9)[1]
    for order in ((real, fake), (fake, real)):
        chex.assert_trees_all_close(together(*order), whole, rtol=1e-6)


PAGE = (ROOT / "docs" / "pains.md").read_text(encoding="utf-8")


def test_every_pain_is_on_the_page_with_what_holds_it():
    sections = re.split(r"^## (\d+)\. ", PAGE, flags=re.MULTILINE)[1:]
    assert [int(number) for number in sections[::2]] == list(range(1, 27))
    for number, text in zip(sections[::2], sections[1::2]):
        assert re.search(r"^(Held by|Out of scope)", text, re.MULTILINE), number


@pytest.mark.parametrize("named", sorted(set(re.findall(r"`(tests/[\w/]+\.py::[\w:]+)`", PAGE))))
def test_a_test_that_the_page_names_exists(named):
    file, *names = named.split("::")
    source = (ROOT / file).read_text(encoding="utf-8")
    for name in names:
        assert re.search(rf"^ *(def|class) {name}\b", source, re.MULTILINE), named


def test_the_page_names_every_test_of_a_pain():
    mine = re.findall(r"^def (test_pains?_\w+)", Path(__file__).read_text(), re.MULTILINE)
    assert [name for name in mine if f"::{name}`" not in PAGE] == []
