"""Hard values: every family through the function and the layer, with and without a mask.

Each family is drawn afresh from its seed and held to extended precision, values, statistics and
gradients alike, at tolerances that allow a few roundings and no cancellation.
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import reference

import jbn
import jbn.linen

LARGEST = np.finfo(np.float32).max


def normal(rng, shape, mean=0.0, std=1.0):
    return mean + std * rng.standard_normal(shape)


def with_outlier(value, row):
    def draw(rng):
        x = normal(rng, (700, 6))
        x[row, ::2] = value
        return x

    return draw


def with_constant(rng):
    x = normal(rng, (512, 5), mean=3.0)
    x[:, 1] = 12345.678
    return x


def side_by_side(rng):
    return normal(rng, (600, 41)) * 10.0 ** np.arange(-20, 21)


FAMILIES = {
    **{
        f"mean over std {ratio:g}": lambda rng, r=ratio: normal(rng, (1024, 8), mean=r, std=1.0)
        for ratio in (1e2, -1e3, 1e4, 1e5, 1e6, 1e7)
    },
    "mean 1e4 std 0.1, 65536 rows": lambda rng: normal(rng, (65536, 3), 1e4, 0.1),
    "constant 0": lambda rng: np.zeros((300, 4)),
    "constant 3.7": lambda rng: np.full((300, 4), 3.7),
    "constant 12345.678": lambda rng: np.full((77, 4), 12345.678),
    "constant 1e30": lambda rng: np.full((300, 4), 1e30),
    "one constant among others": with_constant,
    **{
        f"outlier {value:g} in row {row}": with_outlier(value, row)
        for value in (1e6, 1e12)
        for row in (0, 350, 17, -1)
    },
    "outliers in one per cent": lambda rng: np.where(
        rng.random((4096, 6)) < 0.01, 1e6, normal(rng, (4096, 6))
    ),
    "sorted drift": lambda rng: np.sort(normal(rng, (4096, 5), 50, 30), axis=0),
    "scales 1e-20 to 1e20 side by side": side_by_side,
    "1e18": lambda rng: 1e18 * normal(rng, (400, 5)),
    "1e20": lambda rng: 1e20 * normal(rng, (400, 5)),
    "1e30": lambda rng: 1e30 * normal(rng, (400, 5), mean=2),
    "near the largest": lambda rng: rng.uniform(-0.99, 0.99, (400, 5)) * LARGEST,
    "positive near the largest": lambda rng: rng.uniform(0.5, 0.99, (400, 5)) * LARGEST,
    "std 1e-6": lambda rng: 1e-6 * normal(rng, (400, 5)),
    "denormals": lambda rng: 1e-39 * normal(rng, (400, 5)),
    "two rows": lambda rng: normal(rng, (2, 7), 5, 3),
    "three rows": lambda rng: normal(rng, (3, 7), 5, 3),
    "a million rows, mean 10": lambda rng: normal(rng, (1_000_000, 1), 10),
    "a million rows, mean 1e3": lambda rng: normal(rng, (1_000_000, 1), 1e3),
    "200,000 features": lambda rng: normal(rng, (5, 200_000), 3),
    "a prime number of rows": lambda rng: normal(rng, (40_009, 3), 1e3),
    "images": lambda rng: normal(rng, (16, 9, 9, 12), 1e4, 2),
    "sparse": lambda rng: np.where(rng.random((2000, 6)) < 0.02, 5.0, 0.0),
}


def by_function(x, affine, mask, **options):
    return jbn.batch_norm(x, affine, jbn.init(x.shape[-1])[1], mask=mask, momentum=0.0, **options)


def by_linen(x, affine, mask, **options):
    layer = jbn.linen.BatchNorm(use_running_average=False, momentum=0.0, **options)
    stats = jbn.init(x.shape[-1])[1]._asdict()
    variables = {"params": affine._asdict(), "batch_stats": stats}
    y, updates = layer.apply(variables, x, mask=mask, mutable=["batch_stats"])
    return y, jbn.RunningStats(**updates["batch_stats"])


def check(function, x, mask=None, epsilon=1e-5):
    rng = np.random.default_rng(len(x))
    x = np.asarray(x, np.float32)
    x = np.where(np.abs(x) < np.finfo(np.float32).tiny, 0, x)  # as XLA reads denormals on a CPU
    scale, bias = rng.normal(1, 1, (2, x.shape[-1])).astype(np.float32)
    ct = rng.standard_normal(x.shape).astype(np.float32)
    where = True
    if mask is not None:
        where = np.broadcast_to(mask.reshape(mask.shape + (1,) * (x.ndim - mask.ndim)), x.shape)
        ct = np.where(where, ct, np.float32(0))
    affine = jbn.Affine(jnp.asarray(scale), jnp.asarray(bias))

    def loss(x, affine):
        y, stats = function(x, affine, mask, epsilon=epsilon)
        return jnp.sum(y * ct), (y, stats)

    hidden = jnp.asarray(np.where(where, x, np.float32(np.nan)))
    (dx, daffine), (y, stats) = jax.grad(loss, (0, 1), has_aux=True)(hidden, affine)
    ref = reference.batch_norm(x, scale, bias, ct, mask=mask, epsilon=epsilon)
    # A variance that float32 cannot hold is no evidence: its feature keeps the initial 0 and 1.
    held = ref.var < LARGEST
    np.testing.assert_array_equal(stats.var[~held], 1)
    np.testing.assert_array_equal(stats.mean[~held], 0)
    reference.assert_matches(
        ref._replace(mean=np.where(held, ref.mean, 0), var=np.where(held, ref.var, 1)),
        where=where,
        y=y,
        mean=stats.mean,
        var=stats.var,
        dx=dx,
        dscale=daffine.scale,
        dbias=daffine.bias,
    )


@pytest.mark.parametrize("function", [by_function, by_linen])
@pytest.mark.parametrize("family", FAMILIES)
def test_whole_batches(family, function):
    x = FAMILIES[family](np.random.default_rng(1))
    if function is by_linen and x.size > 500_000:
        pytest.skip("the layer adds nothing that depends on size")
    check(function, x)


@pytest.mark.parametrize("kind", ["row", "element"])
@pytest.mark.parametrize("family", FAMILIES)
def test_masked_batches(family, kind):
    rng = np.random.default_rng(2)
    x = FAMILIES[family](rng)
    shape = x.shape if kind == "element" else x.shape[:-1]
    mask = rng.random(shape) < 0.7
    mask[:2] = True
    check(by_function, x, mask)


@pytest.mark.parametrize("epsilon", [1e-12, 1e-3])
def test_other_epsilons(epsilon):
    rng = np.random.default_rng(3)
    check(by_function, normal(rng, (300, 5), 0, 1e-5), epsilon=epsilon)
    check(by_function, normal(rng, (300, 5), 10, 1), epsilon=epsilon)


def test_a_spread_the_frame_did_not_see_is_never_finite_and_wrong():
    """The three rows that choose the frame are zero, and the squares of the rest overflow."""
    x = np.zeros((401, 3), np.float32)
    x[1:100] = np.random.default_rng(4).normal(0, 1e30, (99, 3))
    y, stats = by_function(jnp.asarray(x), jbn.init(3)[0], None)
    ref = reference.batch_norm(x, np.ones(3), np.zeros(3), x)
    if np.isfinite(y).all():
        reference.assert_matches(ref, y=y)
    np.testing.assert_array_equal(stats.var, 1)


@pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.float16])
@pytest.mark.parametrize(
    ("mean", "std", "rows"), [(0, 300, 512), (500, 1, 512), (2e4, 10, 512), (0, 1e-6, 512),
                              (5, 1, 70_000)],
)  # fmt: skip
def test_half_precision_input(dtype, mean, std, rows):
    x = jnp.asarray(normal(np.random.default_rng(5), (rows, 3), mean, std), dtype)
    y, stats = by_function(x, jbn.init(3)[0], None)
    ref = reference.batch_norm(x.astype(jnp.float32), np.ones(3), np.zeros(3), np.ones(x.shape))
    tolerances = reference.TOLERANCES | {"y": 5e-3 if dtype == jnp.bfloat16 else 6e-4}
    reference.assert_matches(ref, tolerances=tolerances, y=y, mean=stats.mean, var=stats.var)
    assert y.dtype == dtype
    assert stats.var.dtype == jnp.float32


def test_a_bfloat16_model_keeps_learning_its_mean():
    x = 5 + jax.random.normal(jax.random.key(0), (64, 3), jnp.bfloat16)
    affine, stats = jbn.init(3, jnp.bfloat16)
    for _ in range(1000):
        _, stats = jbn.batch_norm(x, affine, stats, momentum=0.99)
    np.testing.assert_allclose(stats.mean, jnp.mean(x.astype(jnp.float32), 0), rtol=1e-3)


@pytest.mark.parametrize("family", ["mean over std 1e+06", "images", "1e20", "sorted drift"])
def test_double_precision(family):
    with jax.enable_x64(True):
        x = FAMILIES[family](np.random.default_rng(6))
        ct = np.random.default_rng(7).standard_normal(x.shape)
        affine, _ = jbn.init(x.shape[-1], jnp.float64)

        def loss(x):
            y, stats = by_function(x, affine, None)
            return jnp.sum(y * ct), (y, stats)

        dx, (y, stats) = jax.grad(loss, has_aux=True)(jnp.asarray(x))
        ref = reference.batch_norm(x, *affine, ct, epsilon=1e-5, epsilon_dtype=np.float64)
        tight = dict.fromkeys(reference.TOLERANCES, 5e-14)
        reference.assert_matches(ref, tolerances=tight, y=y, dx=dx)
        assert stats.var.dtype == jnp.float32
