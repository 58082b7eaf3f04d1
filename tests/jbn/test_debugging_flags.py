"""Debugging flags of JAX: they raise no false alarm here."""

from contextlib import ExitStack

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

import jbn
import jbn.linen
import jbn.nnx

X = 2 + jax.random.normal(jax.random.key(0), (8, 3))
AFFINE, STATS = jbn.init(3)
MOMENTS = jbn.batch_moments(X)
PARTS = jax.tree.map(lambda leaf: jnp.stack([leaf, leaf]), MOMENTS)
SOME, NONE, ONE = jnp.arange(8) < 6, jnp.zeros(8, bool), jnp.arange(8) < 1
FLAGS = jnp.ones(8, jnp.int32)
HALF = X.astype(jnp.bfloat16)
COMPLEX = jax.lax.complex(X, X)
BIAS_ONLY = jbn.linen.BatchNorm(use_running_average=False, use_scale=False)
LINEN = jbn.linen.BatchNorm(use_running_average=False)
VARIABLES = LINEN.init(jax.random.key(0), X)
NNX = jbn.nnx.BatchNorm(3, rngs=nnx.Rngs(0))
NNX_BARE = jbn.nnx.BatchNorm(3, use_scale=False, use_bias=False, rngs=nnx.Rngs(0))


def train(**options):
    return lambda: jbn.batch_norm(X, AFFINE, STATS, **options)


def linen(x=X, layer=LINEN, **options):
    return lambda: layer.apply(VARIABLES, x, mutable=["batch_stats"], **options)


def gradient():
    y, pullback = jax.vjp(lambda x, a: jbn.batch_norm(x, a, STATS)[0], X, AFFINE)
    return pullback(y)


CALLS = {
    "init": lambda: jbn.init(3),
    "batch_norm": train(),
    "with a mask": train(mask=SOME),
    "with a mask of integers": train(mask=FLAGS),
    "with an empty mask": train(mask=NONE),
    "of one counted example": train(mask=ONE),
    "by Ghost of Renorm": train(variant=jbn.Ghost(4, jbn.Renorm())),
    "by Renorm without bounds": train(variant=jbn.Renorm(float("inf"), float("inf"))),
    "by Renorm within (1, 0)": train(variant=jbn.Renorm(1, 0)),
    "by Running": train(variant=jbn.Running()),
    "by Uncentered": train(variant=jbn.Uncentered()),
    "by Detached": train(variant=jbn.Detached()),
    "by Noisy": train(variant=jbn.Noisy(jax.random.key(1))),
    "gradients": gradient,
    "in half precision": lambda: jbn.batch_norm(HALF, AFFINE, STATS),
    "batch_moments": lambda: jbn.batch_moments(X),
    "batch_moments with a mask": lambda: jbn.batch_moments(X, mask=SOME),
    "pool_moments": lambda: jbn.pool_moments(PARTS),
    "normalize": lambda: jbn.normalize(X, *STATS, *AFFINE),
    "normalize without affine": lambda: jbn.normalize(X, *STATS),
    "normalize by numbers": lambda: jbn.normalize(X, *STATS, 2.0, np.float32(1)),
    "update_running": lambda: jbn.update_running(STATS, MOMENTS, momentum=0.9),
    "bessel_correction": lambda: jbn.bessel_correction(MOMENTS),
    "bessel_correction of one": lambda: jbn.bessel_correction(jbn.batch_moments(X, mask=ONE)),
    "bessel_correction of none": lambda: jbn.bessel_correction(jbn.batch_moments(X, mask=NONE)),
    "as_affine": lambda: jbn.as_affine(AFFINE, STATS),
    "fold": lambda: jbn.fold(X, None, AFFINE),
    "fold_forward": lambda: jbn.fold_forward(X.T, None, AFFINE),
    "warmup_momentum": lambda: jbn.warmup_momentum(3),
    "debiased_momentum": lambda: jbn.debiased_momentum(3),
    "debiased_momentum at 1": lambda: jbn.debiased_momentum(3, 1.0),
    "debiased_momentum at 0": lambda: jbn.debiased_momentum(3, 0.0),
    "linen": linen(),
    "linen with a mask": linen(mask=SOME),
    "linen without a scale": linen(layer=BIAS_ONLY),
    "linen of one example": linen(X[:1]),
    "linen in half precision": linen(HALF),
    "linen of complex numbers": lambda: LINEN.init_with_output(jax.random.key(0), COMPLEX),
    "linen at inference": linen(layer=LINEN.clone(use_running_average=True)),
    "nnx": lambda: NNX(X),
    "nnx with a mask": lambda: NNX(X, mask=SOME),
    "nnx without scale and bias": lambda: NNX_BARE(X),
    "nnx at inference": lambda: NNX(X, use_running_average=True),
}

calls = pytest.mark.parametrize("call", CALLS.values(), ids=CALLS)
by_guard = {name: call for name, call in CALLS.items() if name != "linen of complex numbers"}


@calls
def test_no_false_alarm(call):
    flags = (jax.debug_nans, jax.debug_infs, jax.check_tracer_leaks, jax.enable_checks)
    with ExitStack() as stack:
        for flag in flags:
            stack.enter_context(flag(True))
        call()


@pytest.mark.parametrize("call", by_guard.values(), ids=by_guard)
def test_nothing_is_transferred_behind_the_users_back(call):
    with jax.transfer_guard("disallow"):
        call()


@pytest.mark.parametrize(
    "call",
    [
        lambda x: jbn.batch_norm(x, AFFINE, STATS),
        lambda x: jbn.batch_moments(x),
        lambda x: jbn.normalize(x, *STATS),
        lambda x: LINEN.apply(VARIABLES, x, mutable=["batch_stats"]),
        lambda x: NNX(x),
    ],
)
def test_the_users_own_transfers_are_still_found(call):
    with jax.transfer_guard("disallow"), pytest.raises(Exception, match="Disallowed host-to-dev"):
        call(np.ones((4, 3), np.float32))


NUMBERS = {
    "bfloat16": (jnp.bfloat16(1e-3), jnp.bfloat16(0.9)),
    "float16": (jnp.float16(1e-3), jnp.float16(0.9)),
    "NumPy's float64": (np.float64(1e-3), np.float64(0.9)),
    "NumPy's float16": (np.float16(1e-3), np.float16(0.9)),
    "integers": (1, jnp.int32(1)),
}
VARIANTS = (
    jbn.Standard(),
    jbn.Renorm(),
    jbn.Renorm(jnp.bfloat16(2), np.float16(1)),
    jbn.Running(),
    jbn.Uncentered(),
    jbn.Detached(),
    jbn.Noisy(jax.random.key(0)),
    jbn.Ghost(4, jbn.Renorm()),
)


@pytest.mark.parametrize(("epsilon", "momentum"), NUMBERS.values(), ids=NUMBERS)
@pytest.mark.parametrize("variant", VARIANTS, ids=lambda v: type(v).__name__)
def test_strict_promotion_takes_numbers_of_any_type(variant, epsilon, momentum):
    assert jax.config.jax_numpy_dtype_promotion == "strict"
    options = {"variant": variant, "epsilon": epsilon, "momentum": momentum}
    for x in (X, HALF):
        y, stats = jax.eval_shape(lambda x: jbn.batch_norm(x, AFFINE, STATS, **options), x)
        assert y.dtype == x.dtype
        assert stats.var.dtype == jnp.float32


@pytest.mark.parametrize(("epsilon", "momentum"), NUMBERS.values(), ids=NUMBERS)
def test_numbers_of_any_type_mean_the_same(epsilon, momentum):
    options = {"variant": jbn.Renorm(1.5, 0.5)}
    got = jbn.batch_norm(X, AFFINE, STATS, epsilon=epsilon, momentum=momentum, **options)
    options |= {"epsilon": float(epsilon), "momentum": float(momentum)}
    y, stats = jbn.batch_norm(X, AFFINE, STATS, **options)
    np.testing.assert_allclose(got[0], y, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(got[1].var, stats.var, rtol=1e-2)  # 1 - momentum in half precision


def test_strict_promotion_takes_records_of_mixed_types():
    half = jbn.Affine(AFFINE.scale.astype(jnp.bfloat16), AFFINE.bias)
    stats = jbn.RunningStats(STATS.mean.astype(jnp.bfloat16), STATS.var)
    for y in (
        jbn.batch_norm(X, half, stats)[0],
        jbn.normalize(X, *stats, *half, epsilon=jnp.bfloat16(1e-3)),
        jbn.as_affine(half, stats, epsilon=jnp.bfloat16(1e-3)).scale,
        jbn.fold(X, AFFINE.bias.astype(jnp.float16), half)[0],
    ):
        assert jnp.all(jnp.isfinite(y))
