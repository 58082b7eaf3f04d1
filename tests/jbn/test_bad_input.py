"""Bad input to the library gets an error that says what came and what was needed."""

from fractions import Fraction

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

import jbn
import jbn.linen
import jbn.nnx

X = jnp.ones((4, 3)) * jnp.arange(4.0)[:, None]


def call(x=X, affine=None, stats=None, **options):
    default = jbn.init(3)
    return jbn.batch_norm(x, affine or default[0], stats or default[1], **options)


CASES = {
    "a list": ({"x": [[1.0, 2.0, 3.0]] * 4}, TypeError, "x must be an array .*, got list"),
    "integers": ({"x": jnp.ones((4, 3), int)}, TypeError, "got int32.*astype"),
    "bool": ({"x": jnp.ones((4, 3), bool)}, TypeError, "got bool"),
    "complex": ({"x": jnp.ones((4, 3), complex)}, TypeError, "real.*got complex64"),
    "a scalar": ({"x": jnp.float32(1)}, ValueError, r"\(\*batch, features\), got \(\)"),
    "no batch": ({"x": jnp.ones(3)}, ValueError, r"got \(3,\).*axis_name"),
    "one example": ({"x": jnp.ones((1, 3))}, ValueError, r"\(1, 3\) holds one example.*normalize"),
    "one pixel": ({"x": jnp.ones((1, 1, 1, 3))}, ValueError, "holds one example"),
    "no example": ({"x": jnp.ones((0, 3))}, ValueError, r"\(0, 3\) holds no examples"),
    "affine of another width": (
        {"affine": jbn.init(4)[0]},
        ValueError,
        r"scale must have one number per feature.*\(4, 3\) has 3 features.*has shape \(4,\)",
    ),
    "bias of width one": (
        {"affine": jbn.Affine(jnp.ones(3), jnp.ones(1))},
        ValueError,
        r"bias .* has shape \(1,\)",
    ),
    "stats of another width": (
        {"stats": jbn.RunningStats(jnp.ones(3), jnp.ones(2))},
        ValueError,
        r"stats.var .* has shape \(2,\)",
    ),
    "momentum above one": (
        {"momentum": 1.1},
        ValueError,
        r"momentum must lie in \[0, 1\], got 1.1",
    ),
    "negative momentum": ({"momentum": -0.1}, ValueError, r"momentum .*got -0.1"),
    "momentum nan": ({"momentum": float("nan")}, ValueError, "momentum .*got nan"),
    "momentum string": ({"momentum": "0.9"}, TypeError, r"momentum must be a number.*'0.9'"),
    "momentum per feature": ({"momentum": jnp.ones(3)}, TypeError, "momentum must be a number"),
    "epsilon zero": ({"epsilon": 0.0}, ValueError, r"epsilon must lie in \[1.17549e-38, .*got 0"),
    "epsilon negative": ({"epsilon": -1e-5}, ValueError, "epsilon .*got -1e-05"),
    "epsilon nan": ({"epsilon": float("nan")}, ValueError, "epsilon .*got nan"),
    "epsilon string": ({"epsilon": "tiny"}, TypeError, "epsilon must be a number"),
    "mask too short": (
        {"mask": jnp.ones(3, bool)},
        ValueError,
        r"mask of shape \(3,\) does not fit x of shape \(4, 3\).*\(4,\) or \(4, 1\)",
    ),
    "mask of weights": ({"mask": jnp.ones(4)}, TypeError, "mask must be .*bool.*got float32"),
    "mask a list": ({"mask": [True] * 4}, TypeError, "mask must be .*got list"),
    "mask of features": ({"mask": jnp.ones((5, 3), bool)}, ValueError, "mask of shape"),
    "unknown axis": ({"axis_name": "date"}, NameError, "axis_name='date' is not bound"),
}


@pytest.mark.parametrize("jit", [False, True])
@pytest.mark.parametrize("name", CASES)
def test_batch_norm_names_the_mistake(name, jit):
    options, error, message = CASES[name]
    arrays = {k: v for k, v in options.items() if isinstance(v, jax.Array) and k != "momentum"}
    static = {k: v for k, v in options.items() if k not in arrays}
    function = jax.jit(lambda **traced: call(**traced, **static)) if jit else call
    with pytest.raises(error, match=message):
        function(**(arrays if jit else options))


MOMENTS = jbn.batch_moments(X)
PARTS = jax.tree.map(lambda leaf: jnp.stack([leaf, leaf]), MOMENTS)
AFFINE, STATS = jbn.init(3)
WIDE, HALF, TINY = jnp.ones(3), jnp.float32(0.5), jnp.float32(1e-39)


def traced(function):
    """`function` of a traced vector, where a number is needed."""
    return lambda: jax.jit(function)(WIDE)


def sync(moments):
    return jax.vmap(lambda m: jbn.sync_moments(m, "d"), axis_name="d")(moments)


def empty(*shape):
    features = jnp.ones(shape[-1])
    return lambda: jbn.batch_norm(
        jnp.ones(shape), jbn.Affine(features, features), jbn.RunningStats(features, features)
    )


def by_variant(variant):
    return lambda: call(variant=variant)


ROWS = {
    # bad arrays accepted
    "update_running with moments of one feature": (
        lambda: jbn.update_running(STATS, jbn.batch_moments(X[:, :1]), momentum=0.9),
        ValueError,
        r"shape of the statistics, \(3,\), got mean \(1,\), var \(1,\), size \(1,\)",
    ),
    "update_running with moments not yet pooled": (
        lambda: jbn.update_running(STATS, PARTS, momentum=0.9),
        ValueError,
        r"got mean \(2, 3\).*pool_moments",
    ),
    "pool_moments of moments not stacked": (
        lambda: jbn.pool_moments(MOMENTS),
        ValueError,
        r"of shape \(K, C\).*got \(3,\)",
    ),
    "sync_moments of stacked moments": (
        lambda: sync(jax.tree.map(lambda leaf: leaf[None], PARTS)),
        ValueError,
        r"shape \(C,\), got \(2, 3\)",
    ),
    "bessel_correction of leaves that differ in shape": (
        lambda: jbn.bessel_correction(MOMENTS._replace(size=jnp.ones(1))),
        ValueError,
        r"one shape, got mean \(3,\), var \(3,\), size \(1,\)",
    ),
    "an epsilon that is flushed to zero": (
        lambda: call(epsilon=1e-45),
        ValueError,
        r"epsilon must lie in \[1.17549e-38, .*got 1e-45",
    ),
    "the same as an array": (
        lambda: call(epsilon=TINY),
        ValueError,
        "epsilon must lie in",
    ),
    "the same in normalize": (
        lambda: jbn.normalize(X, *STATS, epsilon=1e-39),
        ValueError,
        "epsilon must lie in",
    ),
    "the same in as_affine": (
        lambda: jbn.as_affine(AFFINE, STATS, epsilon=1e-39),
        ValueError,
        "epsilon must lie in",
    ),
    "an epsilon beyond float32": (lambda: call(epsilon=1e39), ValueError, "got 1e"),
    "an epsilon beyond any float": (lambda: call(epsilon=10**400), ValueError, "got 1000"),
    "a traced momentum for each feature": (
        traced(lambda v: call(momentum=v)),
        TypeError,
        r"momentum must be a number .*float32\[3\]",
    ),
    "a traced epsilon for each feature": (
        traced(lambda v: call(epsilon=v)),
        TypeError,
        r"epsilon must be a number .*float32\[3\]",
    ),
    "the same to normalize": (
        traced(lambda v: jbn.normalize(X, *STATS, epsilon=v)),
        TypeError,
        r"epsilon must be a number .*float32\[3\]",
    ),
    "the same to update_running": (
        traced(lambda v: jbn.update_running(STATS, MOMENTS, momentum=v)),
        TypeError,
        r"momentum must be a number .*float32\[3\]",
    ),
    "traced bounds of Renorm for each feature": (
        traced(lambda v: call(variant=jbn.Renorm(v, v))),
        TypeError,
        r"r_max must be a number .*float32\[3\]",
    ),
    "steps of a warmup as a vector": (
        traced(jbn.warmup_momentum),
        TypeError,
        r"step must be a number .*float32\[3\]",
    ),
    "a negative step": (lambda: jbn.debiased_momentum(-1), ValueError, "step .*got -1"),
    "a traced bool as momentum": (
        lambda: jax.jit(lambda v: call(momentum=v))(True),
        TypeError,
        "momentum must be a number",
    ),
    "Renorm of an array below its bound": (
        lambda: jbn.Renorm(HALF),
        ValueError,
        r"r_max must lie in \[1, inf\], got Array\(0.5",
    ),
    "Renorm of None": (lambda: jbn.Renorm(None), TypeError, r"r_max .* got None"),
    "Renorm of a vector": (lambda: jbn.Renorm(3.0, WIDE), TypeError, "d_max must be a number"),
    "momentum NumPy's True": (
        lambda: call(momentum=np.True_),
        TypeError,
        r"momentum must be a number .*np.True_",
    ),
    "momentum JAX's True": (
        lambda: call(momentum=jnp.array(True)),
        TypeError,
        "momentum must be a number",
    ),
    "scale True": (lambda: jbn.normalize(X, *STATS, True), TypeError, "scale .*got bool"),
    # confusing errors
    "batch_moments of no rows": (
        lambda: jbn.batch_moments(X[:0]),
        ValueError,
        r"x of shape \(0, 3\) holds no examples. Skip empty batches",
    ),
    "the same with a mask": (
        lambda: jbn.batch_moments(X[:0], mask=jnp.ones(0, bool)),
        ValueError,
        "holds no examples",
    ),
    "batch_moments of a zero inner axis": (
        lambda: jbn.batch_moments(jnp.ones((4, 0, 3))),
        ValueError,
        r"\(4, 0, 3\) holds no examples",
    ),
    "batch_norm of a zero inner axis": (empty(4, 0, 3), ValueError, "holds no examples"),
    "pool_moments of no parts": (
        lambda: jbn.pool_moments(jax.tree.map(lambda leaf: leaf[:0], PARTS)),
        ValueError,
        r"at least one; got \(0, 3\)",
    ),
    "batch_norm of no features": (empty(4, 0), ValueError, r"\(4, 0\) holds no features"),
    "batch_moments of no features": (
        lambda: jbn.batch_moments(jnp.ones((4, 0))),
        ValueError,
        r"\(4, 0\) holds no features",
    ),
    "normalize of a scalar": (
        lambda: jbn.normalize(jnp.float32(1), *STATS),
        ValueError,
        r"\(\*batch, features\), got \(\)",
    ),
    "init of integers": (lambda: jbn.init(3, int), TypeError, "dtype must be real .*got int32"),
    "init of complex numbers": (lambda: jbn.init(3, complex), TypeError, "got complex64"),
    "momentum one and a little": (
        lambda: call(momentum=1 + 1e-9),
        ValueError,
        r"momentum must lie in \[0, 1\], got 1.000000001",
    ),
    "Ghost of a float": (lambda: jbn.Ghost(4.0), ValueError, "group_size .*got 4.0"),
    "Ghost of True": (lambda: jbn.Ghost(np.True_), ValueError, r"group_size .*got np.True_"),
    "Noisy of a negative spread": (
        lambda: jbn.Noisy(jax.random.key(0), spread=-1.0),
        ValueError,
        "spread must lie in",
    ),
    **{
        f"variant {variant!r}": (by_variant(variant), TypeError, "variant must be .*Standard()")
        for variant in (jbn.Standard, "standard", None, 3)
    },
    **{
        f"a base {base!r}": (lambda base=base: jbn.Ghost(2, base), TypeError, "base must be")
        for base in (jbn.Standard, "standard", None)
    },
    "a base of noise None": (
        lambda: jbn.Noisy(jax.random.key(0), base=None),
        TypeError,
        "base must be",
    ),
}

RECORDS = {
    "None": None,
    "a list": [WIDE, WIDE],
    "a float": 1.0,
    "a dict": {"scale": WIDE, "bias": WIDE},
    "a tuple": (WIDE, WIDE),
    "moments": MOMENTS,
}


@pytest.mark.parametrize("jit", [False, True])
@pytest.mark.parametrize("name", ROWS)
def test_every_row_names_the_mistake(name, jit):
    function, error, message = ROWS[name]
    with pytest.raises(error, match=message):
        (jax.jit(function) if jit else function)()


@pytest.mark.parametrize(
    ("function", "message"),
    [
        (lambda r: jbn.batch_norm(X, r, STATS), r"affine must be a jbn.Affine, got .*scale, bias"),
        (lambda r: jbn.batch_norm(X, AFFINE, r), r"stats must be a jbn.RunningStats, got .*mean"),
        (lambda r: jbn.as_affine(r, STATS), "affine must be a jbn.Affine"),
        (lambda r: jbn.as_affine(AFFINE, r), "stats must be a jbn.RunningStats"),
        (lambda r: jbn.fold(X, None, r), "affine must be a jbn.Affine"),
        (lambda r: jbn.fold_forward(X.T, None, r), "affine must be a jbn.Affine"),
        (lambda r: jbn.update_running(r, MOMENTS, momentum=0.9), "stats must be a jbn.Running"),
    ],
)
@pytest.mark.parametrize("record", RECORDS.values(), ids=RECORDS)
def test_a_record_is_never_guessed(function, message, record):
    with pytest.raises(TypeError, match=message):
        function(record)


@pytest.mark.parametrize("function", [jbn.pool_moments, jbn.bessel_correction])
@pytest.mark.parametrize("record", [None, tuple(MOMENTS), STATS])
def test_moments_are_never_guessed(function, record):
    with pytest.raises(TypeError, match=r"must be a jbn.Moments, got .*mean, var, size"):
        function(record)


def test_swapped_records_are_told_apart():
    with pytest.raises(TypeError, match="affine must be a jbn.Affine, got RunningStats"):
        jbn.batch_norm(X, STATS, AFFINE)


@pytest.mark.parametrize("integer", [np.int64, np.int32, np.uint8, jnp.int32, np.array])
def test_numpy_integers_are_integers(integer):
    chex.assert_trees_all_equal(jbn.init(integer(3)), jbn.init(3))
    assert jbn.Ghost(integer(4)) == jbn.Ghost(4)
    assert repr(jbn.Ghost(integer(4))) == repr(jbn.Ghost(4))
    linen = jbn.linen.BatchNorm(use_running_average=False, axis=integer(1))
    y, _ = linen.init_with_output(jax.random.key(0), X)
    chex.assert_trees_all_equal(y, call()[0])
    layer = jbn.nnx.BatchNorm(integer(3), axis=integer(1), rngs=nnx.Rngs(0))
    chex.assert_trees_all_equal(layer(X), y)


def test_numbers_come_in_any_type():
    expected = call(momentum=0.5, epsilon=0.25)
    for number in (np.float64, np.float16, jnp.bfloat16, jnp.float32, np.longdouble, Fraction):
        got = call(momentum=number(0.5), epsilon=number(0.25))
        chex.assert_trees_all_equal(got, expected)
    big_endian = np.array(0.5, ">f8"), np.array(0.25, ">f4")
    chex.assert_trees_all_equal(call(momentum=big_endian[0], epsilon=big_endian[1]), expected)
    chex.assert_trees_all_equal(
        jbn.normalize(X, *STATS, np.float32(2), Fraction(1)), jbn.normalize(X, *STATS, 2.0, 1.0)
    )


def test_parts_name_the_mistake():
    with pytest.raises(ValueError, match=r"got \(3,\)"):
        jbn.batch_moments(jnp.ones(3))
    with pytest.raises(ValueError, match="var must have one number per feature"):
        jbn.normalize(X, jnp.zeros(3), jnp.ones(4))
    with pytest.raises(ValueError, match="epsilon"):
        jbn.normalize(X, jnp.zeros(3), jnp.ones(3), epsilon=0)
    with pytest.raises(ValueError, match="momentum"):
        jbn.warmup_momentum(3, 2.0)
    for bad in (0, -1, 2.5, True, "3"):
        with pytest.raises(ValueError, match="num_features must be a positive int"):
            jbn.init(bad)


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"axis": 2}, ValueError, "axis=2 is out of range for an input of 2 axes"),
        ({"axis": (1, -1)}, ValueError, "each once"),
        ({"axis": ()}, ValueError, "at least one feature axis"),
        ({"axis": 1.0}, TypeError, "axis must be an int"),
        ({"momentum": 1.5}, ValueError, "momentum must lie in"),
        ({"epsilon": 0.0}, ValueError, "epsilon must lie in"),
    ],
)
def test_linen_names_the_mistake(options, error, message):
    with pytest.raises(error, match=message):
        jbn.linen.BatchNorm(use_running_average=False, **options).init(jax.random.key(0), X)


def test_linen_names_an_unbound_axis():
    layer = jbn.linen.BatchNorm(use_running_average=False, axis_name="d")
    with pytest.raises(NameError, match="axis_name='d' is not bound"):
        layer.apply(layer.init(jax.random.key(0), X), X, mutable=["batch_stats"])
