"""Bad input to the library gets an error that says what came and what was needed."""

import jax
import jax.numpy as jnp
import pytest

import jbn
import jbn.linen

X = jnp.ones((4, 3)) * jnp.arange(4.0)[:, None]


def call(x=X, affine=None, stats=None, **options):
    default = jbn.init(3)
    return jbn.batch_norm(x, affine or default[0], stats or default[1], **options)


CASES = {
    "a list": ({"x": [[1.0, 2.0, 3.0]] * 4}, TypeError, "x must be an array, got list"),
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
        r"running_var .* has shape \(2,\)",
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
    "epsilon zero": ({"epsilon": 0.0}, ValueError, r"epsilon must lie in \(0, inf\], got 0"),
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
