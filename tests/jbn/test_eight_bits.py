"""Floats of eight bits are treated as bfloat16, float32 inside and rounded once at the end."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import reference
from flax import nnx

import jbn
import jbn.linen
import jbn.nnx


def normal(rng, shape, mean, std):
    return mean + std * rng.standard_normal(shape)


def at_length(dtype, rounding, masked):
    return pytest.param(dtype, rounding, masked, marks=pytest.mark.long)


@pytest.mark.parametrize(
    ("dtype", "rounding", "masked"),
    [
        (jnp.float8_e4m3fn, 2**-4, False),
        (jnp.float8_e5m2, 2**-3, True),
        (jnp.float8_e4m3b11fnuz, 2**-4, True),
        at_length(jnp.float8_e4m3fn, 2**-4, True),
        at_length(jnp.float8_e5m2, 2**-3, False),
        at_length(jnp.float8_e4m3b11fnuz, 2**-4, False),
        at_length(jnp.float8_e5m2fnuz, 2**-3, False),
        at_length(jnp.float8_e5m2fnuz, 2**-3, True),
    ],
)
def test_eight_bit_input_is_rounded_once(dtype, rounding, masked):
    x = jnp.asarray(normal(np.random.default_rng(5), (512, 3), 1, 2), dtype)
    mask = np.arange(512) % 7 > 0 if masked else None
    where = np.ones((512, 1), bool) if mask is None else mask[:, None]
    ct = jnp.asarray(np.random.default_rng(6).choice([-1, -0.5, 0.5, 1], x.shape), dtype)

    def train(x):
        y, stats = jbn.batch_norm(x, *jbn.init(3), momentum=0.0, mask=mask)
        return jnp.where(where, y, jnp.zeros_like(y)), stats

    @jax.jit
    def everything(x, ct):
        y, pullback, stats = jax.vjp(train, x, has_aux=True)
        exact = jbn.batch_norm(x.astype(jnp.float32), *jbn.init(3), mask=mask)[0]
        return y, *pullback(ct), stats, exact.astype(dtype)

    y, dx, stats, exact = everything(x, ct)
    assert y.dtype == dx.dtype == dtype
    assert stats.var.dtype == jnp.float32
    wide, kept = (np.asarray(a).astype(np.float32) for a in (x, ct))
    kept = np.where(where, kept, 0)
    ref = reference.batch_norm(wide, np.ones(3), np.zeros(3), kept, mask=mask)
    tolerances = reference.TOLERANCES | {"y": rounding, "dx": rounding}
    moments = {"mean": stats.mean, "var": stats.var}
    reference.assert_matches(ref, tolerances=tolerances, where=where, y=y, dx=dx, **moments)
    # What rounds more than once is further from the float32 result than half a step.
    assert np.where(where, y == exact, True).all()


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.float16, jnp.float8_e4m3fn])
def test_layers_take_eight_bit_input_with_a_dtype(dtype):
    x = jnp.asarray(normal(np.random.default_rng(5), (64, 3), 1, 2), jnp.float8_e4m3fn)
    expected, stats = jbn.batch_norm(x.astype(jnp.float32), *jbn.init(3))
    linen = jbn.linen.BatchNorm(use_running_average=False, dtype=dtype)
    y, updates = linen.apply(linen.init(jax.random.key(0), x), x, mutable=["batch_stats"])
    np.testing.assert_array_equal(y, expected.astype(dtype))
    np.testing.assert_array_equal(updates["batch_stats"]["var"], stats.var)
    layer = jbn.nnx.BatchNorm(3, dtype=dtype, rngs=nnx.Rngs(0))
    np.testing.assert_array_equal(layer(x), y)
    inferred = layer(x, use_running_average=True)
    assert inferred.dtype == dtype
    wide = jbn.normalize(x.astype(jnp.float32), layer.mean[...], layer.var[...])
    np.testing.assert_array_equal(inferred, wide.astype(dtype))
