"""Every argument that takes an array takes NumPy's too, of any byte order, and nothing else."""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

import jbn
import jbn.linen
import jbn.nnx

rng = np.random.default_rng(5)
X = rng.standard_normal((8, 3)).astype(np.float32) + 2
ROW = np.abs(rng.standard_normal(3)).astype(np.float32)
AFFINE, STATS = jbn.Affine(1 + ROW, ROW), jbn.RunningStats(ROW, 1 + ROW)
MOMENTS = jbn.Moments(ROW, ROW, np.full(3, 8, np.float32))
PARTS = jbn.Moments(*(np.stack([leaf, leaf]) for leaf in MOMENTS))
FLAGS = np.array([1, 1, 0, 1, 1, 1, 0, 1], np.int32)
LINEN = {"params": AFFINE._asdict(), "batch_stats": STATS._asdict()}


class Place(NamedTuple):
    """Where an array goes."""

    good: np.ndarray
    call: Callable[[Any], Any]
    name: str  # the argument's, in an error
    kind: str = "real"  # of numbers that it takes


def linen(x, **options):
    layer = jbn.linen.BatchNorm(use_running_average=False)
    return layer.apply(LINEN, x, mutable=["batch_stats"], **options)


def in_nnx(x, **options):
    layer = jbn.nnx.BatchNorm(3, rngs=nnx.Rngs(0))
    return layer(x, **options), layer.mean[...]


def update(stats=STATS, moments=MOMENTS):
    return jbn.update_running(stats, moments, momentum=0.9)


def sync(stacked):
    one = jax.tree.map(lambda leaf: leaf[None], MOMENTS)
    # The mapped moments only bind the axis: what is tried comes from outside, as a constant.
    return jax.vmap(lambda _: jbn.sync_moments(stacked, "d"), axis_name="d")(one)


def in_fields(name, record, call):
    """One place for each field of a record."""
    for field, good in record._asdict().items():
        kind = "complex" if name.startswith(("update_running", "bessel")) else "real"
        kind = kind if field == "mean" else "real"
        put = lambda v, field=field: call(record._replace(**{field: v}))  # noqa: E731
        yield f"{name} {field}", Place(good, put, f".{field}", kind)


forward = partial(jbn.fold_forward, axis=0, input_axis=1)

PLACES = {
    "batch_norm x": Place(X, lambda v: jbn.batch_norm(v, AFFINE, STATS), "x"),
    "batch_norm mask": Place(
        FLAGS, lambda v: jbn.batch_norm(X, AFFINE, STATS, mask=v), "mask", "flags"
    ),
    **dict(in_fields("batch_norm", AFFINE, lambda r: jbn.batch_norm(X, r, STATS))),
    **dict(in_fields("batch_norm", STATS, lambda r: jbn.batch_norm(X, AFFINE, r))),
    "batch_moments x": Place(X, jbn.batch_moments, "x"),
    "batch_moments mask": Place(FLAGS, lambda v: jbn.batch_moments(X, mask=v), "mask", "flags"),
    "normalize x": Place(X, lambda v: jbn.normalize(v, *STATS), "x"),
    "normalize mean": Place(ROW, lambda v: jbn.normalize(X, v, ROW), "mean"),
    "normalize var": Place(ROW, lambda v: jbn.normalize(X, ROW, v), "var"),
    "normalize scale": Place(ROW, lambda v: jbn.normalize(X, ROW, ROW, v), "scale"),
    "normalize bias": Place(ROW, lambda v: jbn.normalize(X, ROW, ROW, ROW, v), "bias"),
    **dict(in_fields("update_running", STATS, lambda r: update(stats=r))),
    **dict(in_fields("bessel_correction", MOMENTS, jbn.bessel_correction)),
    **dict(in_fields("update_running by", MOMENTS, lambda r: update(moments=r))),
    "pool_moments": Place(
        PARTS.var, lambda v: jbn.pool_moments(PARTS._replace(var=v)), "stacked.var"
    ),
    "sync_moments": Place(ROW, lambda v: sync(MOMENTS._replace(var=v)), "moments.var"),
    **dict(in_fields("as_affine", AFFINE, lambda r: jbn.as_affine(r, STATS))),
    **dict(in_fields("as_affine", STATS, lambda r: jbn.as_affine(AFFINE, r))),
    "fold kernel": Place(X, lambda v: jbn.fold(v, ROW, AFFINE), "kernel"),
    "fold bias": Place(ROW, lambda v: jbn.fold(X, v, AFFINE), "bias"),
    **dict(in_fields("fold", AFFINE, lambda r: jbn.fold(X, ROW, r))),
    "fold_forward kernel": Place(X, lambda v: forward(v, None, AFFINE), "kernel"),
    **dict(in_fields("fold_forward", AFFINE, lambda r: forward(X, None, r))),
    "linen x": Place(X, linen, "x", "any"),
    "linen mask": Place(FLAGS, lambda v: linen(X, mask=v), "mask", "flags"),
    "nnx x": Place(X, in_nnx, "x", "any"),
    "nnx mask": Place(FLAGS, lambda v: in_nnx(X, mask=v), "mask", "flags"),
}

places = pytest.mark.parametrize("place", PLACES.values(), ids=PLACES)


class Tensor:
    """An array of another library: it has a type and a shape, which say nothing to JAX."""

    dtype = "torch.float32"
    shape = (8, 3)
    ndim = 2

    def astype(self, dtype):
        raise AssertionError("nothing may be asked of it")


@places
def test_big_endian_arrays_are_read_rightly(place):
    foreign = place.good.astype(place.good.dtype.newbyteorder(">"))
    assert foreign.tobytes() != place.good.tobytes()
    chex.assert_trees_all_equal(place.call(foreign), place.call(place.good))


@places
def test_masked_arrays_are_refused_and_the_mask_named(place):
    masked = np.ma.array(place.good, mask=place.good > 1)
    with pytest.raises(TypeError, match=rf"{place.name} is a masked array .*mask=~"):
        place.call(masked)


@places
@pytest.mark.parametrize(
    "value", [Tensor(), [[1.0, 2.0]], "x", {"a": 1}], ids=["tensor", "list", "string", "dict"]
)
def test_what_is_no_array_is_told_to_become_one(place, value):
    with pytest.raises(TypeError, match=rf"{place.name} must be an array .*Pass jnp.asarray"):
        place.call(value)


@places
@pytest.mark.parametrize("dtype", [np.longdouble, object, "U1", "M8[s]"])
def test_types_that_jax_does_not_have_are_named(place, dtype):
    value = place.good.astype(int).astype(dtype)
    with pytest.raises(TypeError, match=rf"{place.name} holds .*JAX does not have.*astype"):
        place.call(value)


@pytest.mark.parametrize(
    "place", [pytest.param(p, id=n) for n, p in PLACES.items() if p.kind in ("real", "complex")]
)
@pytest.mark.parametrize("dtype", [np.int32, np.bool_, np.complex64, jnp.float8_e8m0fnu])
@pytest.mark.parametrize("to", [np.asarray, jnp.asarray])
def test_types_that_hold_no_real_numbers_are_refused(place, dtype, to):
    if dtype == np.complex64 and place.kind == "complex":
        return  # the running mean of complex input
    with pytest.raises(TypeError, match=rf"{place.name} must hold .*got "):
        place.call(to(place.good.astype(dtype)))


def test_a_complex_mean_never_loses_its_imaginary_part():
    complex_mean = MOMENTS._replace(mean=MOMENTS.mean + 1j)
    with pytest.raises(TypeError, match="imaginary part"):
        update(moments=complex_mean)
    new = update(STATS._replace(mean=STATS.mean.astype(np.complex64)), complex_mean)
    np.testing.assert_allclose(new.mean.imag, 0.1, rtol=1e-6)


def test_recalibration_reads_big_endian_batches_rightly():
    foreign = X.astype(">f4")
    stats, _ = jbn.recalibrate(jbn.batch_moments, STATS, [foreign, foreign])
    np.testing.assert_allclose(stats.mean, X.mean(0), rtol=1e-6)
    report = jbn.nnx.recalibrate(jbn.nnx.BatchNorm(3, rngs=nnx.Rngs(0)), [foreign])
    assert report[""].mean < 100


def test_double_precision_without_x64_warns_of_nothing(recwarn):
    double = X.astype(np.float64)
    stats = jbn.RunningStats(*(leaf.astype(np.float64) for leaf in STATS))
    affine = jbn.Affine(*(leaf.astype(np.float64) for leaf in AFFINE))
    for y in (
        jbn.normalize(double, *STATS, *affine),
        jbn.normalize(double, *stats),
        jbn.batch_norm(double, affine, stats)[0],
        jbn.batch_moments(double).mean,
        jbn.as_affine(affine, stats).scale,
        jbn.init(3, jnp.float64)[0].scale,
        linen(double)[0],
        in_nnx(double)[0],
    ):
        assert y.dtype == jnp.float32
    assert not recwarn.list
    np.testing.assert_allclose(jbn.normalize(double, *stats), jbn.normalize(X, *STATS))


def test_variables_of_nnx_are_arrays():
    affine = jbn.Affine(nnx.Param(AFFINE.scale), nnx.Param(AFFINE.bias))
    chex.assert_trees_all_equal(jbn.batch_norm(X, affine, STATS), jbn.batch_norm(X, AFFINE, STATS))
