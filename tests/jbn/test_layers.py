"""Both Flax layers: they agree bit for bit, and they survive bad batches."""

import chex
import flax.errors
import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

import jbn.linen
import jbn.nnx

SHAPE = (6, 5, 4, 3)
NORMAL = nn.initializers.normal()


def linen(x, *, infer=False, variables=None, mask=None, momentum=None, call=None, **options):
    """y and all variables after one call, of which `call` are further arguments."""
    layer = jbn.linen.BatchNorm(use_running_average=infer, **options)
    if variables is None:
        variables = layer.init(jax.random.key(0), x)
    y, updates = layer.apply(
        variables, x, mask=mask, momentum=momentum, **(call or {}), mutable=["batch_stats"]
    )
    return y, {**variables, **updates}


def nnx_after(x, variables, *, infer=False, mask=None, momentum=None, call=None, **options):
    """As `linen`, from the variables of a Linen layer of the same options."""
    collections = {**variables.get("params", {}), **variables["batch_stats"]}
    shape = collections["mean"].shape
    layer = jbn.nnx.BatchNorm(
        int(np.prod(shape)), use_running_average=infer, rngs=nnx.Rngs(0), **options
    )
    for name, value in collections.items():
        getattr(layer, name)[...] = value.reshape(-1)
    y = layer(x, mask=mask, momentum=momentum, **(call or {}))
    stats = {name: getattr(layer, name)[...].reshape(shape) for name in ("mean", "var")}
    return y, {**variables, "batch_stats": stats}


MASKS = {
    "none": None,
    "examples": (6,),
    "pixels": (6, 5, 4),
    "broadcast": (6, 1, 4, 1),
    "elements": SHAPE,
    "features": (3,),
}
OPTIONS = [
    {},
    {"axis": 1},
    {"axis": (1, 3)},
    {"momentum": 0.5, "epsilon": 1e-2},
    {"use_scale": False},
    {"use_scale": False, "use_bias": False},
    {"dtype": jnp.bfloat16},
    {"param_dtype": jnp.bfloat16, "dtype": jnp.float16},
    {"scale_init": NORMAL, "bias_init": NORMAL},
]


def name(value):
    return "-".join(value) or "defaults" if isinstance(value, dict) else jnp.dtype(value).name


TYPES = [(options, jnp.float32) for options in OPTIONS]
TYPES += [(options, dtype) for options in OPTIONS[:2] for dtype in (jnp.bfloat16, jnp.float16)]


@pytest.mark.parametrize(("options", "dtype"), TYPES, ids=name)
def test_linen_and_nnx_agree_bit_for_bit(key, options, dtype):
    x = (3 * jax.random.normal(key, SHAPE) + 2).astype(dtype)
    init = jbn.linen.BatchNorm(use_running_average=False, **options).init(key, x)
    for name, shape in MASKS.items():
        if options.get("axis") and name == "pixels":
            continue  # fits no batch of this axis, and no broadcast
        if options and "axis" not in options and name not in ("none", "examples"):
            continue  # where a mask lies has to do with the axis alone
        mask = None if shape is None else jax.random.bernoulli(key, 0.6, shape)
        for infer in (False, True):
            once = linen(x, mask=mask, infer=infer, variables=init, **options)
            again = nnx_after(x, init, mask=mask, infer=infer, **options)
            # Flax's NNX infers the type of the result from the running statistics too: where it
            # is another one, it is rounded once more here, and so are the last bits.
            same_type = again[0].dtype == once[0].dtype
            ulp = 0 if same_type else float(jnp.finfo(once[0].dtype).eps)
            chex.assert_trees_all_close(again[0].astype(once[0].dtype), once[0], rtol=ulp)
            chex.assert_trees_all_equal(again[1], once[1])


def test_linen_and_nnx_agree_bit_for_bit_while_training(key):
    variables = None
    for step in range(20):
        x = jax.random.normal(jax.random.fold_in(key, step), (16, 5)) * (1 + step)
        momentum = jbn.warmup_momentum(step)
        if variables is None:
            variables = jbn.linen.BatchNorm(use_running_average=False).init(key, x)
        y, new = linen(x, momentum=momentum, variables=variables)
        chex.assert_trees_all_equal(nnx_after(x, variables, momentum=momentum), (y, new))
        variables = new


@pytest.mark.parametrize("call", ["linen", "nnx"])
class TestBoth:
    """Each test runs with either front-end."""

    @pytest.fixture
    def layer(self, call, key):
        def run(x, **options):
            """y, running mean and running variance after one call."""
            calls = ("mask", "momentum", "infer", "call")
            start = {k: v for k, v in options.items() if k not in calls}
            module = jbn.linen.BatchNorm(use_running_average=False, **start)
            variables = module.init(key, x)
            function = nnx_after if call == "nnx" else linen
            y, after = function(x, variables=variables, **options)
            return y, after["batch_stats"]["mean"], after["batch_stats"]["var"]

        return run

    def test_a_mask_covers_the_leading_batch_axes(self, layer, key):
        x = jax.random.normal(key, (5, 5))
        rows = jnp.array([True, True, False, True, False])
        _, mean, var = layer(x, mask=rows, momentum=0.0)
        np.testing.assert_allclose(mean, x[rows].mean(0), rtol=1e-5)
        np.testing.assert_allclose(var, x[rows].var(0), rtol=1e-5)

        # With the features on axis 1 of images, pixels are (N, H, W), as they are without it.
        images = jax.random.normal(key, (2, 4, 3, 3))
        pixels = jax.random.bernoulli(key, 0.6, (2, 3, 3))
        _, mean, _ = layer(images, axis=1, mask=pixels, momentum=0.0)
        np.testing.assert_allclose(mean, images.transpose(0, 2, 3, 1)[pixels].mean(0), rtol=1e-5)

    def test_any_other_mask_broadcasts_as_in_flax(self, layer, key):
        x = jax.random.normal(key, (6, 4, 3))
        for shape in ((1, 4, 1), (4, 1), (6, 1, 3), (6, 4, 3), (1, 1, 1)):
            mask = jax.random.bernoulli(key, 0.7, shape).at[(0,) * len(shape)].set(True)
            full = np.broadcast_to(mask, x.shape)
            _, mean, var = layer(x, mask=mask, momentum=0.0)
            counted = full.any((0, 1))
            expected = x.mean((0, 1), where=full), x.var((0, 1), where=full)
            np.testing.assert_allclose(mean[counted], expected[0][counted], rtol=1e-5, atol=1e-6)
            np.testing.assert_allclose(var[counted], expected[1][counted], rtol=1e-5, atol=1e-6)
            # A feature that nothing counts for keeps its 0 and 1.
            np.testing.assert_array_equal(mean[~counted], 0)
            np.testing.assert_array_equal(var[~counted], 1)
        with pytest.raises(ValueError, match=r"mask of shape \(5,\) .* x of shape \(6, 4, 3\)"):
            layer(x, mask=jnp.ones(5, bool))
        with pytest.raises(TypeError, match="mask must be an array of bool"):
            layer(x, mask=jnp.ones(6))

    def test_a_bad_batch_does_not_poison(self, layer, key):
        x = jax.random.normal(key, (8, 3)).at[2, 1].set(jnp.nan)
        y, mean, var = layer(x, momentum=0.5)
        assert np.isnan(np.asarray(y)[:, 1]).all()  # the batch shows it
        assert np.isfinite(np.asarray(y)[:, [0, 2]]).all()
        assert (mean[1], var[1]) == (0, 1)
        np.testing.assert_allclose(mean[0], x[:, 0].mean() / 2, rtol=1e-5)

    @pytest.mark.parametrize("shape", [(1, 4), (4,), (1, 1, 1, 4)])
    def test_one_example_is_the_bias_and_keeps_the_variance(self, layer, key, shape):
        x = 100 + jax.random.normal(key, shape)
        y, mean, var = layer(x, momentum=0.75, bias_init=NORMAL)
        bias = jbn.linen.BatchNorm(use_running_average=False, bias_init=NORMAL).init(key, x)
        np.testing.assert_array_equal(y.reshape(-1), bias["params"]["bias"])
        np.testing.assert_allclose(mean, x.reshape(-1) / 4, rtol=1e-6)
        np.testing.assert_array_equal(var, 1)

    def test_complex_numbers_share_one_variance(self, layer, key):
        x = (jax.random.normal(key, (9, 3, 4), jnp.complex64) * 3 + (5 - 2j)).at[0].set(jnp.nan)
        mask = (jnp.arange(9) > 0)[:, None, None]
        valid = np.asarray(x)[1:].astype(np.complex128)
        y, mean, var = layer(x, mask=mask, momentum=0.25, dtype=jnp.complex64)
        expected = (valid - valid.mean((0, 1))) / np.sqrt(valid.var((0, 1)) + 1e-5)
        np.testing.assert_allclose(y[1:], expected, atol=1e-6)
        np.testing.assert_allclose(mean, 0.75 * valid.mean((0, 1)), rtol=1e-6)
        np.testing.assert_allclose(var, 0.25 + 0.75 * valid.var((0, 1)), rtol=1e-6)
        assert (y.dtype, mean.dtype, var.dtype) == (jnp.complex64, jnp.complex64, jnp.float32)

        z, *_ = layer(x[1:], infer=True, dtype=jnp.complex64)
        np.testing.assert_allclose(z, valid / np.sqrt(1 + 1e-5), rtol=1e-6)

    def test_the_variant_of_a_call_may_be_traced(self, layer, key):
        x = jax.random.normal(key, (8, 3)) + 5

        @jax.jit
        def renorm(d_max):
            return layer(x, call={"variant": jbn.Renorm(r_max=1.0, d_max=d_max)})[0]

        plain, *_ = layer(x)
        chex.assert_trees_all_close(renorm(0.0), plain, atol=1e-6)
        chex.assert_trees_all_close(renorm(2.0), plain + 2, atol=1e-5)

    def test_integers_become_floats(self, layer, key):
        x = jax.random.randint(key, (8, 3), 0, 255, jnp.uint8)
        y, *_ = layer(x)
        assert y.dtype == jnp.float32
        chex.assert_trees_all_equal(y, layer(x.astype(jnp.float32))[0])


def test_a_real_running_mean_refuses_complex_input():
    layer = jbn.nnx.BatchNorm(3, rngs=nnx.Rngs(0))
    with pytest.raises(TypeError, match="complex running mean, got float32.*dtype=jnp.complex64"):
        layer(jnp.ones((4, 3), jnp.complex64))


def test_forgetting_mutable_says_what_to_write(key):
    class Net(nn.Module):
        @nn.compact
        def __call__(self, x):
            return jbn.linen.BatchNorm(use_running_average=False, name="norm")(x)

    x = jax.random.normal(key, (8, 3))
    variables = Net().init(key, x)
    with pytest.raises(flax.errors.ModifyScopeVariableError) as caught:
        Net().apply(variables, x)
    message = str(caught.value)
    assert '"norm" is training' in message
    line = next(part for part in message.splitlines() if "mutable=" in part)
    names = {"model": Net(), "variables": variables, "x": x}
    exec(line.strip(), names)
    assert set(names["updates"]) == {"batch_stats"}


def test_linen_scan_and_vmap_equal_a_loop(key):
    x = jax.random.normal(key, (12, 5))

    class Block(nn.Module):
        @nn.compact
        def __call__(self, x, _):
            return jnp.sin(
                jbn.linen.BatchNorm(use_running_average=False, bias_init=NORMAL)(x)
            ), None

    axes = {"params": 0, "batch_stats": 0}
    stack = nn.scan(Block, variable_axes=axes, split_rngs={"params": True}, length=3)()
    variables = stack.init(key, x, None)
    (y, _), updates = stack.apply(variables, x, None, mutable=["batch_stats"])
    expected, pick = x, lambda tree, i: jax.tree.map(lambda leaf: leaf[i], tree)
    for i in range(3):
        (expected, _), new = Block().apply(
            pick(variables, i), expected, None, mutable=["batch_stats"]
        )
        chex.assert_trees_all_close(pick(updates, i), new, atol=1e-5)
    chex.assert_trees_all_close(y, expected, atol=1e-5)

    ensemble = nn.vmap(
        Block, in_axes=(None, None), variable_axes=axes, split_rngs={"params": True}, axis_size=3
    )()
    variables = ensemble.init(key, x, None)
    (y, _), updates = ensemble.apply(variables, x, None, mutable=["batch_stats"])
    (single, _), new = Block().apply(pick(variables, 2), x, None, mutable=["batch_stats"])
    chex.assert_trees_all_close((y[2], pick(updates, 2)), (single, new), atol=1e-6)
