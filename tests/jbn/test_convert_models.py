"""Layers of whole models: where each goes, and which are refused; tests/parity compares outputs."""

import jax.numpy as jnp
import numpy as np
import pytest

from jbn import convert

RNG = np.random.default_rng(0)


def numbers(*shape):
    return RNG.normal(size=shape).astype(np.float32)


def torch_norm(path, features):
    names = ("weight", "bias", "running_mean", "running_var")
    return {f"{path}.{name}": np.abs(numbers(features)) for name in names}


def torch_state():
    """Two Linear layers of one shape, another of its own, a norm."""
    return {
        "a.weight": numbers(3, 3),
        "a.bias": numbers(3),
        "b.weight": numbers(3, 3),
        "b.bias": numbers(3),
        "fc.weight": numbers(5, 3),
        "fc.bias": numbers(5),
        "bn.num_batches_tracked": np.asarray(7),
        **torch_norm("bn", 3),
    }


def dense(*shape):
    return {"kernel": jnp.zeros(shape), "bias": jnp.zeros(shape[-1])}


def linen(**changes):
    params = {"a": dense(3, 3), "block": {"c": dense(3, 3)}, "head": dense(3, 5)}
    params |= {"norm": {"scale": jnp.zeros(3), "bias": jnp.zeros(3)}}
    stats = {"norm": {"mean": jnp.zeros(3), "var": jnp.zeros(3)}}
    return {"params": params | changes, "batch_stats": stats}


def test_layers_go_by_rename_by_name_and_by_the_only_shape():
    state = torch_state()
    variables, moved = convert.model_from_torch(state, into=linen(), rename={"b": "block/c"})
    assert moved == {"a": "a", "b": "block/c", "fc": "head", "bn": "norm"}
    params = variables["params"]
    np.testing.assert_array_equal(params["a"]["kernel"], state["a.weight"].T)
    np.testing.assert_array_equal(params["block"]["c"]["kernel"], state["b.weight"].T)
    np.testing.assert_array_equal(params["head"]["bias"], state["fc.bias"])
    np.testing.assert_array_equal(params["norm"]["scale"], state["bn.weight"])
    np.testing.assert_array_equal(variables["batch_stats"]["norm"]["var"], state["bn.running_var"])
    back = {there: here for here, there in moved.items()}
    new, _ = convert.model_to_torch(variables, into=torch_state(), rename=back)
    for key, value in state.items():
        np.testing.assert_array_equal(new[key], value)


def test_one_of_two_layers_of_a_shape_follows_from_the_other():
    _, moved = convert.model_from_torch(torch_state(), into=linen())  # "a" has its name
    assert moved["b"] == "block/c"


def test_candidates_are_named():
    into = linen()
    into["params"]["x"] = into["params"].pop("a")
    with pytest.raises(ValueError, match=r"'a' fits \['block/c', 'x'\]; 'b' fits .*nothing comes"):
        convert.model_from_torch(torch_state(), into=into)


@pytest.mark.parametrize("given", ["a", "ab"])
@pytest.mark.parametrize("wanted", ["x", "xy"])
def test_a_shape_decides_for_one_layer_alone(given, wanted):
    state = {f"{name}.weight": numbers(2, 3) for name in given}
    into = {"params": {name: {"kernel": jnp.zeros((3, 2))} for name in wanted}}
    if (given, wanted) == ("a", "x"):
        assert convert.model_from_torch(state, into=into)[1] == {"a": "x"}
    else:
        with pytest.raises(ValueError, match="'a' fits .*'x'.*nothing comes to"):
            convert.model_from_torch(state, into=into)


@pytest.mark.parametrize(
    ("changes", "options", "message"),
    [
        ({}, {"rename": {"fc": "haed"}}, "rename has 'haed' for 'fc'.*'head'"),
        ({}, {"rename": {"cf": "head"}}, r"rename has \['cf'\]"),
        ({}, {"rename": {"b": "a"}}, r"\['a'\] to more than one"),
        ({"a": dense(3, 4)}, {}, r"'a' does not fit 'a'.*\(3, 3\).*\(3, 4\)"),
        ({"head": dense(3, 4)}, {}, r"'fc' fits none; nothing comes to \['head'\]"),
        ({"extra": dense(7, 7)}, {}, r"nothing comes to \['extra'\]"),
        (
            {"head": {"kernel": jnp.zeros((3, 5))}},
            {"rename": {"fc": "head"}},
            "'fc' has a bias that",
        ),
        ({"other": {"alpha": jnp.zeros(3)}}, {}, r"\['params/other/alpha'\] are of no Dense"),
        ({}, {"flatten": {"fx": (3, 1)}}, r"flatten has \['fx'\]"),
        ({}, {"flatten": {"fc": (3, 2)}}, r"flatten gives a layer 6 input features.*\(3, 5\)"),
        (
            {"a": {"kernel": jnp.zeros((3, 3), jnp.float16), "bias": jnp.zeros(3)}},
            {},
            "a/kernel is f",
        ),
    ],
)
def test_what_does_not_fit_is_refused(changes, options, message):
    state = torch_state()
    state["a.weight"] = state["a.weight"] * 1e6
    with pytest.raises(ValueError, match=message):
        convert.model_from_torch(state, into=linen(**changes), **options)


def test_heads_and_arrays_may_be_left_alone():
    state = torch_state() | {"bn.extra": numbers(3), "fc.weight": numbers(9, 3)}
    with pytest.raises(ValueError, match=r"\['bn.weight', .*'bn.extra'\] are of no"):
        convert.model_from_torch(state, into=linen())
    ignore = ("extra", "fc", "head")
    into = linen(head=dense(3, 4))
    variables, moved = convert.model_from_torch(state, into=into, ignore=ignore)
    assert moved.keys() == {"a", "b", "bn"}
    assert variables["params"]["head"] == into["params"]["head"]


def test_norms_with_and_without_an_affine_map():
    state, plain = torch_state(), linen()
    lacking = {k: v for k, v in state.items() if k not in ("bn.weight", "bn.bias")}
    new, _ = convert.model_from_torch(lacking, into=plain, rename={"bn": "norm"})
    np.testing.assert_array_equal(new["params"]["norm"]["scale"], 1)
    np.testing.assert_array_equal(new["params"]["norm"]["bias"], 0)

    del lacking["fc.bias"], state["bn.weight"]
    with pytest.raises(ValueError, match="'bn' does not fit 'norm'"):  # one may have been lost
        convert.model_from_torch(state, into=plain, rename={"bn": "norm"})
    with pytest.raises(ValueError, match="'fc' fits none"):
        convert.model_from_torch(lacking, into=plain, rename={"bn": "norm"})
    unscaled = linen(norm={"bias": jnp.zeros(3)})
    new, _ = convert.model_from_torch(state, into=unscaled)
    np.testing.assert_array_equal(new["params"]["norm"]["bias"], state["bn.bias"])
    with pytest.raises(ValueError, match="'bn' has a scale that is not 1"):
        convert.model_from_torch(torch_state(), into=unscaled, rename={"bn": "norm"})
    layer_norm = linen() | {"batch_stats": {}}
    with pytest.raises(ValueError, match="'bn' does not fit 'norm'"):
        convert.model_from_torch(torch_state(), into=layer_norm, rename={"bn": "norm"})


def test_types_are_those_of_the_target():
    into = linen(a={"kernel": jnp.zeros((3, 3), jnp.bfloat16), "bias": jnp.zeros(3)})
    state = torch_state()
    variables, _ = convert.model_from_torch(state, into=into)
    kernel = variables["params"]["a"]["kernel"]
    assert kernel.dtype == jnp.bfloat16
    np.testing.assert_array_equal(kernel, state["a.weight"].T.astype(jnp.bfloat16))


def test_a_flattened_feature_map_is_asked_for():
    """Two channels of two pixels: features 0, 1 are channel 0 there, pixel 0 here."""
    state = {"conv.weight": numbers(2, 1, 3), "conv.bias": numbers(2), "fc.weight": numbers(5, 4)}
    into = {"params": {"conv": dense(3, 1, 2), "fc": {"kernel": jnp.zeros((4, 5))}}}
    with pytest.raises(ValueError, match=r"'fc' reads 4 features.*of 2 channels"):
        convert.model_from_torch(state, into=into)
    variables, _ = convert.model_from_torch(state, into=into, flatten={"fc": (2, 2)})
    kernel = state["fc.weight"].T
    np.testing.assert_array_equal(variables["params"]["fc"]["kernel"], kernel[[0, 2, 1, 3]])
    variables, _ = convert.model_from_torch(state, into=into, flatten={"fc": None})
    np.testing.assert_array_equal(variables["params"]["fc"]["kernel"], kernel)


def test_what_is_no_flax_model_is_refused():
    with pytest.raises(TypeError, match=r"collection 'params'.*got dict of \['a'\]"):
        convert.model_from_torch(torch_state(), into={"a": {}})
    with pytest.raises(
        TypeError, match="a PyTorch state must be a dictionary of arrays, got .*list"
    ):
        convert.model_from_torch([1], into=linen())


def test_names_of_tf_keras_end_in_a_number():
    weights = {"net/fc/kernel:0": numbers(2, 3), "net/fc/bias:0": numbers(3)}
    new, moved = convert.model_from_keras(weights, into={"params": {"head": dense(2, 3)}})
    assert moved == {"net/fc": "head"}
    np.testing.assert_array_equal(new["params"]["head"]["kernel"], weights["net/fc/kernel:0"])
