"""A folded model gives what the unfolded one gave, and what cannot be folded is left and named."""

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

LINEN_NORMS, NNX_NORMS = (jbn.linen.BatchNorm, nn.BatchNorm), (jbn.nnx.BatchNorm, nnx.BatchNorm)


def trained(features=4, seed=0):
    rng = np.random.default_rng(seed)
    scale, bias, mean = (jnp.asarray(v, jnp.float32) for v in rng.normal(size=(3, features)))
    var = jnp.asarray(rng.uniform(0.1, 3, features), jnp.float32)
    return jbn.Affine(scale, bias), jbn.RunningStats(mean, var)


def reference(x, affine, stats, epsilon):
    x, scale, bias, mean, var = (np.asarray(a, np.float64) for a in (x, *affine, *stats))
    return (x - mean) / np.sqrt(var + epsilon) * scale + bias


def test_as_affine_is_inference():
    affine, stats = trained()
    x = np.random.default_rng(1).normal(size=(8, 4))
    scale, bias = jbn.as_affine(affine, stats, epsilon=0.3)
    np.testing.assert_allclose(
        x * np.asarray(scale) + np.asarray(bias), reference(x, affine, stats, 0.3), atol=1e-6
    )


@pytest.mark.parametrize("with_bias", [True, False])
@pytest.mark.parametrize("kind", ["dense", "conv", "grouped conv", "strided conv"])
def test_folding_equals_the_two_steps(kind, with_bias):
    rng = np.random.default_rng(2)
    shape = {"dense": (3, 4), "grouped conv": (3, 3, 3, 4)}.get(kind, (3, 3, 6, 4))
    kernel = jnp.asarray(rng.normal(size=shape), jnp.float32)
    bias = jnp.asarray(rng.normal(size=4), jnp.float32) if with_bias else None
    x = jnp.asarray(rng.normal(size=(2, 7, 5, 3 if kind == "dense" else 6)), jnp.float32)

    def linear(x, kernel, bias):
        if kind == "dense":
            y = x @ kernel
        else:
            y = jax.lax.conv_general_dilated(
                x,
                kernel,
                window_strides=(2, 1) if kind == "strided conv" else (1, 1),
                padding="SAME",
                dimension_numbers=("NHWC", "HWIO", "NHWC"),
                feature_group_count=2 if kind == "grouped conv" else 1,
            )
        return y if bias is None else y + bias.reshape(1, 1, 1, -1)

    affine, stats = trained()
    folded = jbn.fold(kernel, bias, jbn.as_affine(affine, stats))
    expected = reference(linear(x, kernel, bias), affine, stats, 1e-5)
    np.testing.assert_allclose(linear(x, *folded), expected, atol=1e-5)


def test_types_are_kept_and_computed_in_float32():
    affine, stats = trained()
    kernel = jax.random.normal(jax.random.key(0), (3, 4), jnp.bfloat16)
    folded, bias = jbn.fold(kernel, None, jbn.as_affine(affine, stats))
    assert folded.dtype == bias.dtype == jnp.bfloat16
    half = jbn.Affine(*(v.astype(jnp.float16) for v in affine))
    assert jbn.as_affine(half, stats).scale.dtype == jnp.float32


def test_wrong_shapes_are_named():
    affine, stats = trained()
    with pytest.raises(ValueError, match="scale has shape"):
        jbn.fold(jnp.ones((4, 3)), None, affine)
    with pytest.raises(ValueError, match="^bias must have .*bias has shape"):
        jbn.fold(jnp.ones((3, 4)), jnp.ones(3), affine)
    with pytest.raises(ValueError, match="stats.var has shape"):
        jbn.as_affine(affine, stats._replace(var=jnp.ones(1)))
    with pytest.raises(ValueError, match="epsilon"):
        jbn.as_affine(affine, stats, epsilon=0)


class Net(nn.Module):
    """A conv and a dense that fold, with and without bias, and norms that cannot."""

    norm: type = jbn.linen.BatchNorm
    use_scale: bool = True
    use_bias: bool = True

    @nn.compact
    def __call__(self, x, train=False):
        def norm(name, **options):
            options = {"use_scale": self.use_scale, "use_bias": self.use_bias} | options
            return self.norm(use_running_average=not train, name=name, **options)

        x = norm("first")(x)
        x = nn.relu(norm("after_conv", epsilon=1e-2)(nn.Conv(6, (3, 3), name="conv")(x)))
        x = norm("after_conv2")(nn.Conv(4, (3, 3), use_bias=False, name="conv2")(x))
        x = nn.gelu(norm("again")(x)).reshape(x.shape[0], -1)
        h = nn.Dense(5, name="dense")(x)
        x = nn.tanh(norm("residual")(h) + h)
        x = norm("other_axis", axis=0)(nn.Dense(5, name="dense2")(x))
        shared = nn.Dense(5, name="shared")
        x = nn.tanh(norm("of_shared")(shared(shared(x))))
        return norm("last")(nn.Dense(3, name="dense3")(x))


NAMES = ("kernel", "scale", "bias", "mean", "var")


def scramble(tree, seed=0):
    """A trained model's worth of numbers."""
    rng = np.random.default_rng(seed)

    def one(path, value):
        *_, name = (n for n in NAMES if n in jax.tree_util.keystr(path))
        if name == "kernel":
            return jnp.asarray(rng.normal(0, 0.3, value.shape), value.dtype)
        if name in ("scale", "var"):
            return jnp.asarray(rng.uniform(0.5, 2, value.shape), value.dtype)
        return jnp.asarray(rng.normal(size=value.shape), value.dtype)

    return jax.tree.map_with_path(one, tree)


def trained_variables(model, x):
    return scramble(jax.eval_shape(model.init, jax.random.key(1), x))


@pytest.mark.parametrize(
    ("norm", "affine"),
    [(norm, (True, True)) for norm in LINEN_NORMS]
    + [(jbn.linen.BatchNorm, affine) for affine in ((False, True), (True, False), (False, False))],
)
def test_a_linen_model_folds(norm, affine):
    model = Net(norm, *affine)
    x = jax.random.normal(jax.random.key(0), (4, 6, 5, 3))
    with jax.numpy_rank_promotion("allow"):
        variables = trained_variables(model, x)
        before = jax.tree.map(jnp.copy, variables)
        folded, report = jbn.linen.fold(model, variables, x, train=False)
        chex.assert_trees_all_equal(variables, before)
        chex.assert_trees_all_equal_shapes_and_dtypes(folded, variables)
        other = jax.random.normal(jax.random.key(2), x.shape)
        chex.assert_trees_all_close(
            model.apply(folded, other), model.apply(variables, other), rtol=1e-5, atol=1e-5
        )
    assert report.folded == {
        "after_conv": ("conv",),
        "after_conv2": ("conv2",),
        "last": ("dense3",),
    }
    assert report.kept.keys() == {"first", "again", "residual", "other_axis", "of_shared"}
    assert "into conv: conv pads with zeros" in report.kept["first"]
    assert "feature axis" in report.kept["other_axis"]
    assert "only it reads" in report.kept["residual"]
    assert "more than once" in report.kept["of_shared"]
    assert report.difference < 1e-5
    # The folded norms do nothing but add the bias for which conv2 has no place.
    stats, params = folded["batch_stats"], folded["params"]
    np.testing.assert_array_equal(stats["after_conv"]["mean"], 0)
    np.testing.assert_allclose(stats["after_conv"]["var"], 1 - 1e-2)
    assert np.any(stats["after_conv2"]["mean"] != 0)
    if all(affine):
        np.testing.assert_array_equal(params["last"]["scale"], 1)
        np.testing.assert_array_equal(params["last"]["bias"], 0)


def test_the_params_serve_a_model_without_norms():
    class Plain(nn.Module):
        norm: bool

        @nn.compact
        def __call__(self, x):
            for width in (6, 3):
                x = nn.Dense(width)(x)
                x = jbn.linen.BatchNorm(use_running_average=True)(x) if self.norm else x
                x = nn.relu(x)
            return x

    x = jax.random.normal(jax.random.key(0), (8, 4))
    with jax.numpy_rank_promotion("allow"):
        variables = trained_variables(Plain(True), x)
        folded, _ = jbn.linen.fold(Plain(True), variables, x)
        without = {"params": {k: v for k, v in folded["params"].items() if "Dense" in k}}
        chex.assert_trees_all_close(
            Plain(False).apply(without, x), Plain(True).apply(variables, x), atol=1e-5
        )


class Net2(nnx.Module):
    def __init__(self, norm, **options):
        rngs = nnx.Rngs(0)
        self.layers = nnx.List([nnx.Conv(3, 6, (3, 3), rngs=rngs), norm(6, rngs=rngs, **options)])
        self.plain = nnx.Linear(6, 5, use_bias=False, rngs=rngs)
        self.norm = norm(5, rngs=rngs, epsilon=1e-2, **options)
        self.linear = nnx.Linear(5, 5, rngs=rngs)
        self.residual = norm(5, rngs=rngs, **options)

    def __call__(self, x):
        x = nnx.relu(self.layers[1](self.layers[0](x)))
        x = nnx.relu(self.norm(self.plain(x)))
        h = self.linear(x)
        return self.residual(h) + h


@pytest.mark.parametrize("options", [{}, {"use_scale": False, "use_bias": False}], ids=str)
@pytest.mark.parametrize("norm", NNX_NORMS)
def test_an_nnx_model_folds(norm, options):
    model = Net2(norm, **options)
    nnx.update(model, scramble(nnx.state(model)))
    x = jax.random.normal(jax.random.key(0), (4, 6, 5, 3))
    before = jax.tree.map(jnp.copy, nnx.state(model))
    with jax.numpy_rank_promotion("allow"):
        folded, report = jbn.nnx.fold(model, x)
        chex.assert_trees_all_equal(nnx.state(model), before)
        assert model.norm.use_running_average is False
        assert type(folded.norm) is norm
        model.eval()
        other = jax.random.normal(jax.random.key(2), x.shape)
        chex.assert_trees_all_close(folded(other), model(other), rtol=1e-5, atol=1e-5)
    assert report.folded == {"layers/1": ("layers/0",), "norm": ("plain",)}
    assert report.kept.keys() == {"residual"}
    assert report.difference < 1e-5
    np.testing.assert_allclose(folded.norm.var[...], 1 - 1e-2)


def test_a_norm_that_was_never_trained_is_refused_by_name():
    x = jax.random.normal(jax.random.key(0), (4, 6, 5, 3))
    variables = trained_variables(Net(), x)
    variables["batch_stats"]["last"] = {"mean": jnp.zeros(3), "var": jnp.ones(3)}
    with pytest.raises(ValueError, match=r"never trained.*\['last'\]"):
        jbn.linen.fold(Net(), variables, x)
    with pytest.raises(ValueError, match=r"never trained.*'layers/1'.*'norm'"):
        jbn.nnx.fold(Net2(jbn.nnx.BatchNorm), x)


def test_what_stands_between_kernel_and_layer_is_noticed():
    class Net(nn.Module):
        @nn.compact
        def __call__(self, x):
            x = nn.WeightNorm(nn.Dense(4, name="dense"))(x)
            return jbn.linen.BatchNorm(use_running_average=True)(x)

    x = jax.random.normal(jax.random.key(0), (8, 3))
    with jax.numpy_rank_promotion("allow"):
        variables = trained_variables(Net(), x)
        new, report = jbn.linen.fold(Net(), variables, x)
    chex.assert_trees_all_equal(new, variables)
    assert "change by" in report.kept["BatchNorm_0"]
    assert "WeightNorm" in report.kept["BatchNorm_0"]
    assert report.difference == 0


def test_stacked_layers_are_left_alone():
    class Block(nn.Module):
        @nn.compact
        def __call__(self, x, _):
            x = nn.Dense(4, name="dense")(x)
            return jbn.linen.BatchNorm(use_running_average=True, name="norm")(x), None

    class Stack(nn.Module):
        @nn.compact
        def __call__(self, x):
            axes = {"params": 0, "batch_stats": 0}
            scan = nn.scan(Block, variable_axes=axes, split_rngs={"params": True}, length=3)
            return scan(name="stack")(x, None)[0]

    x = jax.random.normal(jax.random.key(0), (8, 4))
    with jax.numpy_rank_promotion("allow"):
        variables = trained_variables(Stack(), x)
        folded, report = jbn.linen.fold(Stack(), variables, x)
    chex.assert_trees_all_equal(folded, variables)
    assert report.folded == {}
    assert "(3, 4)" in report.kept["stack/norm"]


IMAGE = jax.random.normal(jax.random.key(3), (2, 6, 5, 3))


@pytest.mark.parametrize("transposed", [False, True])
def test_a_transposed_convolution_folds_wherever_its_kernel_holds_the_outputs(transposed):
    options = {"kernel_size": (3, 3), "strides": (2, 2), "transpose_kernel": transposed}
    layers = [nn.ConvTranspose(3, **options), jbn.linen.BatchNorm(use_running_average=True)]
    model = nn.Sequential(layers)
    variables = model.init(jax.random.key(0), IMAGE)
    affine, stats = trained(3)
    variables["params"]["layers_1"] = affine._asdict()
    variables["batch_stats"]["layers_1"] = stats._asdict()
    folded, report = jbn.linen.fold(model, variables, IMAGE)
    assert report.folded == {"layers_1": ("layers_0",)}
    chex.assert_trees_all_close(
        model.apply(folded, IMAGE), model.apply(variables, IMAGE), atol=1e-5
    )

    rngs = nnx.Rngs(0)
    model = nnx.Sequential(
        nnx.ConvTranspose(3, 3, rngs=rngs, **options), jbn.nnx.BatchNorm(3, rngs=rngs)
    )
    model(IMAGE)
    _, report = jbn.nnx.fold(model, IMAGE)
    assert report.folded == {"layers/1": ("layers/0",)}


@pytest.mark.parametrize("front", ["linen", "nnx"])
def test_numbers_that_do_not_fit_half_precision_are_kept_with_the_reason(front):
    x = 1e-3 * jax.random.normal(jax.random.key(0), (8, 4), jnp.float16)
    half = {"dtype": jnp.float16, "param_dtype": jnp.float16}
    if front == "linen":
        model = nn.Sequential([nn.Dense(3, **half), jbn.linen.BatchNorm(True, dtype=jnp.float16)])
        variables = model.init(jax.random.key(0), x)
        variables["params"]["layers_1"]["scale"] = jnp.full(3, 500.0)
        variables["batch_stats"]["layers_1"]["var"] = jnp.full(3, 1e-12)
        new, report = jbn.linen.fold(model, variables, x)
        chex.assert_trees_all_equal(new, variables)
        (reason,) = report.kept.values()
    else:
        rngs = nnx.Rngs(0)
        norm = jbn.nnx.BatchNorm(3, dtype=jnp.float16, rngs=rngs)
        norm.scale[...], norm.var[...] = jnp.full(3, 500.0), jnp.full(3, 1e-12)
        model = nnx.Sequential(nnx.Linear(4, 3, rngs=rngs, **half), norm)
        _, report = jbn.nnx.fold(model, x)
        (reason,) = report.kept.values()
    assert "does not fit float16" in reason
    assert not report.folded


def test_a_tolerance_is_of_the_type_or_given():
    x = jax.random.normal(jax.random.key(0), (8, 4))
    half = {"dtype": jnp.bfloat16, "param_dtype": jnp.bfloat16}
    model = nn.Sequential([nn.Dense(3, **half), jbn.linen.BatchNorm(True, dtype=jnp.bfloat16)])
    variables = model.init(jax.random.key(0), x)
    variables["batch_stats"]["layers_1"]["mean"] += 8.0
    _, report = jbn.linen.fold(model, variables, x)
    assert 1e-4 < report.difference < 4 * 2.0**-7
    new, report = jbn.linen.fold(model, variables, x, tolerance=1e-4)
    chex.assert_trees_all_equal(new, variables)
    assert "more than the tolerance of 0.0001" in report.kept["layers_1"]
