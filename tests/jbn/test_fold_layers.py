"""Layers that a norm folds into, before it and after it, in models of both kinds."""

from functools import partial

import chex
import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

import jbn.linen
import jbn.nnx

IMAGE = jax.random.normal(jax.random.key(0), (2, 4, 3, 4))
ROWS = jax.random.normal(jax.random.key(1), (3, 4))


def filled(tree):
    """A trained model's worth of numbers."""
    rng = np.random.default_rng(0)

    def one(path, leaf):
        if "kernel" in jax.tree_util.keystr(path):
            return jnp.asarray(rng.normal(0, 0.3, leaf.shape), leaf.dtype)
        return jnp.asarray(rng.uniform(0.5, 2, leaf.shape), leaf.dtype)

    return jax.tree.map_with_path(one, tree)


def initial(model, x):
    return filled(jax.eval_shape(model.init, jax.random.key(0), x))


class Net(nn.Module):
    """`layers` one after the other: functions that make a layer, by name."""

    layers: dict

    @nn.compact
    def __call__(self, x):
        for name, layer in self.layers.items():
            x = layer(name=name)(x)
        return x


class Nnx(nnx.Module):
    def __init__(self, layers):
        self.layers = list(layers)
        rngs = nnx.Rngs(0)
        for name, layer in layers.items():
            setattr(self, name, layer(rngs=rngs))
        nnx.update(self, filled(nnx.state(self)))

    def __call__(self, x):
        for name in self.layers:
            x = getattr(self, name)(x)
        return x


def fold_linen(layers, x, edit=lambda variables: variables):
    """The report of a folded model, whose output is that of the unfolded one."""
    model = Net(layers)
    variables = edit(initial(model, x))
    folded, report = jbn.linen.fold(model, variables, x, tolerance=1e-5)
    other = jnp.flip(x, 0) + 1
    expected = model.apply(variables, other)
    chex.assert_trees_all_close(model.apply(folded, other), expected, rtol=1e-4, atol=1e-4)
    if not report.folded:
        chex.assert_trees_all_equal(folded, variables)
        return report
    apply, smaller = jbn.linen.drop_norms(model.apply, folded, report)
    chex.assert_trees_all_close(apply(smaller, other), expected, rtol=1e-4, atol=1e-4)
    return report


def fold_nnx(layers, x):
    model = Nnx(layers)
    folded, report = jbn.nnx.fold(model, x, tolerance=1e-5)
    model.eval()
    other = jnp.flip(x, 0) + 1
    expected = model(other)
    chex.assert_trees_all_close(folded(other), expected, rtol=1e-4, atol=1e-4)
    faster = jbn.nnx.drop_norms(folded, report)
    chex.assert_trees_all_close(faster(other), expected, rtol=1e-4, atol=1e-4)
    return report


NORM = partial(jbn.linen.BatchNorm, use_running_average=True)
FLAX_NORM = partial(nn.BatchNorm, use_running_average=True)
NNX_NORM = partial(jbn.nnx.BatchNorm, 4)


@pytest.fixture(autouse=True)
def _flax_promotes_ranks():
    with jax.numpy_rank_promotion("allow"):
        yield


FORWARD = {
    "dense": (partial(nn.Dense, 3), ROWS),
    "grouped": (partial(nn.Conv, 6, (3, 2), 2, padding="VALID", feature_group_count=2), IMAGE),
    "depthwise": (partial(nn.Conv, 8, (2, 2), padding=0, feature_group_count=4), IMAGE),
    "circular": (partial(nn.Conv, 6, (3, 3), padding="CIRCULAR"), IMAGE),
    "one pixel": (partial(nn.Conv, 6, (1, 1), 2), IMAGE),
    "general": (partial(nn.DenseGeneral, (2, 3)), ROWS),
    "two axes": (partial(nn.DenseGeneral, 3, axis=(-2, -1)), IMAGE),
}


@pytest.mark.parametrize("kind", FORWARD)
def test_a_norm_folds_into_the_linear_layer_after_it(kind):
    layer, x = FORWARD[kind]
    norm = FLAX_NORM if kind == "general" else NORM
    report = fold_linen({"norm": norm, "linear": layer}, x)
    assert report.folded == {"norm": ("linear",)}


KEPT = {
    "pads with zeros": partial(nn.Conv, 6, (3, 3)),
    "pads with zeros ": partial(nn.Conv, 6, (1, 1), padding=((0, 0), (1, 0))),
    "pads with zeros  ": partial(nn.Conv, 6, (2, 2), padding=((0, 0), (0, 0)), input_dilation=2),
    "pads with zeros   ": partial(nn.ConvTranspose, 6, (3, 3), padding="VALID"),
    "no bias to take": partial(nn.Dense, 6, use_bias=False),
    "other axes than the last": partial(nn.DenseGeneral, 3, axis=1),
    "ConvLocal, which is not supported": partial(nn.ConvLocal, 2, (3, 3), padding="VALID"),
    "Einsum, which is not supported": partial(nn.Einsum, (4, 3), "...c,cd->...d"),
    "has batch axes": partial(nn.DenseGeneral, 3, batch_dims=(0,)),
}


@pytest.mark.parametrize("why", KEPT)
def test_a_norm_that_cannot_go_forward_says_why(why):
    report = fold_linen({"norm": NORM, "linear": KEPT[why]}, IMAGE)
    assert why.strip() in report.kept["norm"]


@pytest.mark.parametrize("why", ["pads with zeros", "no bias to take"])
def test_without_a_shift_zeros_and_a_missing_bias_do_not_matter(why):
    def no_shift(variables):
        variables["batch_stats"]["norm"]["mean"] *= 0
        return variables

    norm = partial(NORM, use_bias=False)
    report = fold_linen({"norm": norm, "linear": KEPT[why]}, IMAGE, edit=no_shift)
    assert report.folded == {"norm": ("linear",)}


def test_one_layer_takes_a_norm_from_either_side():
    layers = {"first": NORM, "linear": partial(nn.Dense, 3), "second": NORM}
    report = fold_linen(layers, ROWS)
    assert report.folded == {"first": ("linear",), "second": ("linear",)}


class Attention(nn.Module):
    """A norm that three layers read, with heads, and one that a fourth reads too."""

    relu: bool = False

    @nn.compact
    def __call__(self, x):
        x = NORM(name="norm")(x)
        q, k, v = (nn.DenseGeneral((2, 3), name=name)(x) for name in "qkv")
        y = nn.DenseGeneral(4, (-2, -1), name="out")(q * k + v)
        return NORM(name="last")(y) + (nn.relu(x) if self.relu else 0)


@pytest.mark.parametrize("relu", [False, True])
def test_a_norm_folds_into_all_its_readers_or_none(relu):
    variables = initial(Attention(), ROWS)
    _, report = jbn.linen.fold(Attention(relu), variables, ROWS)
    expected = {"last": ("out",)} | ({} if relu else {"norm": ("q", "k", "v")})
    assert report.folded == expected
    assert report.difference < 1e-5


class Named(nn.Dense):
    """A subclass that changes a default, and adds a property."""

    use_bias: bool = False

    @property
    def width(self):
        return self.features


class Standardised(nn.Conv):
    """Big Vision's way of weight standardisation."""

    def param(self, name, *args, **kwargs):
        value = super().param(name, *args, **kwargs)
        return value / jnp.std(value) if name == "kernel" else value


class Doubled(nn.Dense):
    @nn.compact
    def __call__(self, inputs):
        return 2 * super().__call__(inputs)


class NnxNamed(nnx.Linear):
    def __init__(self, features, rngs):
        super().__init__(4, features, rngs=rngs)


class NnxDoubled(NnxNamed):
    def __call__(self, inputs):
        return 2 * super().__call__(inputs)


def test_subclasses_fold_if_they_leave_the_arithmetic_alone():
    report = fold_linen({"linear": partial(Named, 3), "norm": FLAX_NORM}, ROWS)
    assert report.folded == {"norm": ("linear",)}
    for layer, x, why in (
        (partial(Standardised, 3, (2, 2)), IMAGE, "overrides param of Conv"),
        (partial(Doubled, 3), ROWS, "overrides __call__ of Dense"),
    ):
        report = fold_linen({"linear": layer, "norm": NORM}, x)
        assert why in report.kept["norm"]
    layers = {"linear": partial(NnxNamed, 4), "norm": NNX_NORM}
    assert fold_nnx(layers, ROWS).folded == {"norm": ("linear",)}
    layers = {"linear": partial(NnxDoubled, 4), "norm": NNX_NORM}
    assert "overrides __call__ of Linear" in fold_nnx(layers, ROWS).kept["norm"]


@pytest.mark.parametrize("use_bias", [False, True])
@pytest.mark.parametrize("axis", [-1, (-2, -1)])
def test_dense_general_before_a_norm(axis, use_bias):
    layer = partial(nn.DenseGeneral, (2, 4), axis=(1, -1), use_bias=use_bias)
    report = fold_linen({"linear": layer, "norm": partial(NORM, axis=axis)}, IMAGE)
    assert report.folded == {"norm": ("linear",)}
    layer = partial(nnx.LinearGeneral, (4, 4), (2, 4), axis=(1, -1), use_bias=use_bias)
    if axis == -1:
        report = fold_nnx({"linear": layer, "norm": NNX_NORM}, IMAGE)
        assert report.folded == {"norm": ("linear",)}


def test_parameters_with_axis_names_keep_them():
    ones = nn.initializers.ones_init()
    linear = partial(nn.Dense, 3, kernel_init=nn.with_partitioning(ones, ("in", "out")))
    norm = partial(NORM, scale_init=nn.with_partitioning(ones, ("out",)))
    assert fold_linen({"linear": linear, "norm": norm}, ROWS).folded == {"norm": ("linear",)}
    model = Net({"linear": linear, "norm": norm})
    folded, _ = jbn.linen.fold(model, initial(model, ROWS), ROWS)
    assert folded["params"]["linear"]["kernel"].names == ("in", "out")
    assert folded["params"]["norm"]["scale"].names == ("out",)


def test_a_model_computes_in_its_coarsest_type():
    half = partial(nn.Dense, 64, dtype=jnp.bfloat16)
    model = Net({"linear": half, "norm": NORM, "last": partial(nn.Dense, 3)})
    variables = initial(model, ROWS)
    _, report = jbn.linen.fold(model, variables, ROWS)
    assert report.folded == {"norm": ("linear",)}
    assert 1e-4 < report.difference < 4 * 2.0**-7
    with pytest.raises(ValueError, match="tolerance must lie in"):
        jbn.linen.fold(model, variables, ROWS, tolerance=-1.0)


def test_a_norm_that_returns_a_pair_is_left_alone():
    class Pair(jbn.linen.BatchNorm):
        @nn.compact
        def __call__(self, x):
            return super().__call__(x), x

    class Model(nn.Module):
        @nn.compact
        def __call__(self, x):
            return nn.Dense(3)(Pair(use_running_average=True, name="norm")(x)[0])

    _, report = jbn.linen.fold(Model(), initial(Model(), ROWS), ROWS)
    assert list(report.kept) == ["norm"]


@pytest.mark.parametrize("norm", [jbn.nnx.BatchNorm, nnx.BatchNorm])
def test_nnx_models_fold_forward(norm):
    layers = {"norm": partial(norm, 4), "linear": partial(nnx.LinearGeneral, 4, (2, 3))}
    assert fold_nnx(layers, IMAGE).folded == {"norm": ("linear",)}
    conv = partial(nnx.Conv, 4, 6, (2, 2), padding="VALID", feature_group_count=2)
    assert fold_nnx({"norm": partial(norm, 4), "linear": conv}, IMAGE).folded == {
        "norm": ("linear",)
    }
    conv = partial(nnx.Conv, 4, 6, (2, 2), padding="SAME")
    report = fold_nnx({"norm": partial(norm, 4), "linear": conv}, IMAGE)
    assert "pads with zeros" in report.kept["norm"]
    einsum = partial(nnx.Einsum, "...c,cd->...d", (4, 4))
    report = fold_nnx({"linear": einsum, "norm": partial(norm, 4)}, IMAGE)
    assert "Einsum, which is not supported" in report.kept["norm"]
