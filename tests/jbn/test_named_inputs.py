"""Inputs on which batch norm was once found wrong, by name, each with its right value."""

from functools import cache

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import reference
from bound import BOUND, assert_bound, errors
from families import corner_pixels, normal, with_rows
from flax import nnx

import jbn
import jbn.nnx


def rows_at(power):
    return lambda rng: normal(rng, std=10.0**power, shape=(64, 64))


def heavy_tails(power):
    return lambda rng: (10 * normal(rng, shape=(4096, 4))) ** power


def sequences(rng):
    x = normal(rng, 100, shape=(256, 1024, 2))
    x[:, 0] = 0
    return x


def bordered(rng):
    x = normal(rng, 1000, shape=(64, 56, 56, 4))
    x[:, [0, -1]] = x[:, :, [0, -1]] = 0
    return x


WIDE = {
    **{
        f"N(0, 10^{power:g}), 64 rows": rows_at(power)
        for power in (12, 12.5, 12.75, 13, 13.25, 13.5, 13.75, 14, 16, 18)
    },
    **{
        f"512 rows of N(0, 1), row 17 = 10^{power}": with_rows([17], 10.0**power)
        for power in (12, 13, 14, 16, 17, 18, 19)
    },
    **{f"4096 rows of (10 z)^{power}": heavy_tails(power) for power in (9, 11, 13)},
    "2 % of elements 10^16 z, the rest 0": lambda rng: np.where(
        rng.random((512, 4)) < 0.02, 1e16 * normal(rng), 0
    ),
}
UNTYPICAL = {
    **{
        f"{rows} rows of N(1000, 1), rows 0 and -1 zero": with_rows([0, -1], 0, 1000, (rows, 1))
        for rows in (1000, 2**15, 2**20)
    },
    "2^20 rows of N(0, 1), rows 0 and -1 are 1e4": with_rows([0, -1], 1e4, 0, (2**20, 1)),
    **{
        f"images (64, 56, 56, 4) of N({mean}, 1), two zero corner pixels": corner_pixels(
            mean, (64, 56, 56, 4)
        )
        for mean in (10, 100)
    },
    "sequences (256, 1024, 2) of N(100, 1), first token 0": sequences,
    "a zero border of one pixel around N(1000, 1)": bordered,
}
RATIOS = [1e3, 1e4, 1e5, 1e6, 1e7]  # of mean and standard deviation


def draw(family):
    return family(np.random.default_rng(11)).astype(np.float32)


@pytest.mark.parametrize("name", [*WIDE, *UNTYPICAL])
def test_values_and_gradients(name):
    x = draw((WIDE | UNTYPICAL)[name])
    assert_bound(errors(x, order=1))


@pytest.mark.parametrize("name", ["N(0, 10^12.5), 64 rows", "512 rows of N(0, 1), row 17 = 10^14"])
@pytest.mark.parametrize("share", [0.7, 1.0])
def test_under_a_mask(name, share):
    x = draw(WIDE[name])
    assert_bound(errors(x, mask=np.random.default_rng(12).random(len(x)) < share, order=1))


def test_a_million_rows_under_a_mask_that_excludes_none():
    x = draw(UNTYPICAL["2^20 rows of N(0, 1), rows 0 and -1 are 1e4"])
    assert_bound(errors(x, mask=np.ones(len(x), bool), order=1))


@pytest.mark.parametrize("variant", [jbn.Uncentered(), jbn.Ghost(16, jbn.Uncentered())])
@pytest.mark.parametrize(("mean", "std"), [(1e13, 1.0), (1e13, 1e12), (1e17, 1e10), (-1e18, 1e18)])
def test_uncentered_of_means_above_4e12(variant, mean, std):
    x = draw(lambda rng: normal(rng, mean, std))
    assert_bound(errors(x, variant=variant, order=1))


@pytest.mark.parametrize("value", [1e18, 1e20, -1e20, 1e38])
def test_uncentered_of_a_constant_is_one(value):
    assert_bound(errors(np.full((8, 1), value, np.float32), variant=jbn.Uncentered(), order=1))
    y, stats = jbn.batch_norm(jnp.full((8, 1), value), *jbn.init(1), variant=jbn.Uncentered())
    np.testing.assert_allclose(y, np.sign(value), rtol=1e-6)
    if abs(value) > 1.8e19:
        np.testing.assert_array_equal(stats.var, 1)


@pytest.mark.parametrize("ratio", RATIOS)
@pytest.mark.parametrize(
    "variant",
    [jbn.Ghost(4), jbn.Ghost(16, jbn.Ghost(4)), jbn.Ghost(16, jbn.Renorm()), jbn.Renorm()],
)
def test_running_variance_of_groups_at_mean_over_std(variant, ratio):
    x = draw(lambda rng: normal(rng, ratio, shape=(64, 4)))
    for statistics in ("cold", "good"):
        assert_bound(errors(x, statistics, variant=variant, order=1))


def test_ghosts_of_ghosts_of_detached_at_mean_46000():
    variant = jbn.Ghost(11, jbn.Ghost(11, jbn.Detached()))
    x = draw(lambda rng: normal(rng, 4.6e4, shape=(33, 1000)))
    assert_bound(errors(x, variant=variant, order=1))


def check_moments(moments, x):
    ref = reference.batch_norm(x, np.ones(x.shape[-1]), np.zeros(x.shape[-1]), x)
    tolerances = {name: BOUND[name] for name in ("mean", "var")}
    reference.assert_matches(ref, tolerances=tolerances, mean=moments.mean, var=moments.var)


@pytest.mark.parametrize("ratio", [0.0, *RATIOS])
@pytest.mark.parametrize("rows", [1, 2, 16])
def test_pool_moments_of_parts(ratio, rows):
    x = draw(lambda rng: normal(rng, ratio, shape=(64, 4)))
    parts = jax.vmap(jbn.batch_moments)(x.reshape(-1, rows, 4))
    check_moments(jbn.pool_moments(parts), x)
    check_moments(jax.jit(jbn.pool_moments)(parts), x)


@pytest.mark.parametrize("ratio", [0.0, *RATIOS])
def test_sync_moments_of_parts(ratio):
    x = draw(lambda rng: normal(rng, ratio, shape=(64, 4)))

    def part(x):
        return jbn.sync_moments(jbn.batch_moments(x), "data")

    synced = jax.vmap(part, axis_name="data")(x.reshape(8, 8, 4))
    check_moments(jax.tree.map(lambda leaf: leaf[5], synced), x)


@pytest.mark.parametrize("ratio", [0.0, *RATIOS])
def test_recalibrate(ratio):
    x = draw(lambda rng: normal(rng, ratio, shape=(64, 4)))
    stats, _ = jbn.recalibrate(jbn.batch_moments, jbn.init(4)[1], [x[:32], x[32:40], x[40:]])
    check_moments(stats, x)


def complex_reference(x, ct):
    """Values, statistics and gradient with one variance for both parts, and their units."""
    x, ct = x.astype(np.clongdouble), ct[0].astype(np.longdouble) + 1j * ct[1]
    mean = x.mean(0)
    var = (np.abs(x - mean) ** 2).mean(0)
    deviation = np.sqrt(var + np.longdouble(np.float32(1e-5)))
    y = (x - mean) / deviation
    dx = (ct - ct.mean(0) - y * (ct * y.conj()).real.mean(0)) / deviation
    right = {"y": y, "mean": mean, "var": var, "dx": dx.conj()}  # the conjugate, as JAX has it
    units = {
        "y": np.abs(y).max(0) + 1,
        "mean": np.abs(mean) + deviation,
        "var": deviation**2,
        "dx": np.abs(ct).max(0) / deviation,
    }
    return right, units


@cache
def complex_layer(axis_name):
    """From parts of x and a cotangent: the gradient, y and the new statistics."""
    layer = jbn.nnx.BatchNorm(
        4, dtype=jnp.complex64, momentum=0.0, axis_name=axis_name, rngs=nnx.Rngs(0)
    )
    graph, state = nnx.split(layer)

    def loss(x, ct):
        layer = nnx.merge(graph, state, copy=True)
        y = layer(x)
        value = jnp.sum(y.real * ct[0] + y.imag * ct[1])
        return value, (y, layer.mean.get_value(), layer.var.get_value())

    gradient = jax.grad(loss, has_aux=True)
    return jax.jit(jax.vmap(gradient, in_axes=(0, 1), axis_name=axis_name or "one"))


@pytest.mark.parametrize("ratio", [0.0, *RATIOS])
@pytest.mark.parametrize("axis_name", [None, "data"])
def test_complex_layers(ratio, axis_name):
    """One variance for both parts: value, statistics and gradient at a mean of that phase."""
    rng = np.random.default_rng(13)
    parts = normal(rng, shape=(2, 256, 4)) + ratio * np.array([0.8, -0.6])[:, None, None]
    x = (parts[0] + 1j * parts[1]).astype(np.complex64)
    ct = rng.standard_normal((2, 256, 4)).astype(np.float32)
    count = 4 if axis_name else 1
    split = x.reshape(count, -1, 4), ct.reshape(2, count, -1, 4)
    dx, (y, mean, var) = complex_layer(axis_name)(*split)
    dx, y, mean, var = dx.reshape(x.shape), y.reshape(x.shape), mean[-1], var[-1]

    right, units = complex_reference(x, ct)
    found = {"y": y, "mean": mean, "var": var, "dx": dx}
    assert_bound(
        {
            name: float(np.max(np.abs(np.asarray(value) - right[name]) / units[name]))
            for name, value in found.items()
        }
    )


def test_statistics_near_the_largest_number():
    """x - mean is beyond float32 where y, its gradient and that of scale are not."""
    largest = float(np.finfo(np.float32).max)
    x = np.float32([[-4e36, -6e36], [0, 1e38], [3e38, -largest]])
    mean, var = np.float32([largest, -largest]), np.float32([largest, 1e37])
    scale, bias, ct = np.float32([0.8, 2]), np.float32([1, -3]), np.float32([1, -2, 0.5])[:, None]
    centred = x.astype(np.longdouble) - mean
    deviation = np.sqrt(var.astype(np.longdouble))

    def value(x, scale):
        return jbn.normalize(x, mean, var, scale, bias)

    y, pullback = jax.vjp(value, x, scale)
    dx, dscale = pullback(jnp.broadcast_to(ct, y.shape))
    right = {
        "y": (y, scale * centred / deviation + bias),
        "dx": (dx, ct * scale / deviation),
        "dscale": (dscale, (ct * centred).sum(0) / deviation),
    }
    for found, expected in right.values():
        np.testing.assert_allclose(found, expected.astype(float), rtol=1e-5)
    running = jbn.batch_norm(
        x, jbn.Affine(scale, bias), jbn.RunningStats(mean, var), variant=jbn.Running()
    )
    np.testing.assert_allclose(running[0], y, rtol=1e-6)
