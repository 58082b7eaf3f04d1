"""States of other frameworks by their names alone; tests/parity holds them to the frameworks."""

import subprocess
import sys

import chex
import jax.numpy as jnp
import numpy as np
import pytest

import jbn
from jbn import convert


def layer(seed, features):
    rng = np.random.default_rng(seed)
    scale, bias, mean = rng.normal(size=(3, features)).astype(np.float32)
    var = rng.uniform(0.5, 2, features).astype(np.float32)
    vectors = [jnp.asarray(v) for v in (scale, bias, mean, var)]
    return jbn.Affine(*vectors[:2]), jbn.RunningStats(*vectors[2:])


def haiku(layers):
    return convert.from_haiku(*convert.to_haiku(layers, ndim=4, step=3, momentum=0.9))


ROUND_TRIPS = {
    "torch": ("layer1.0.bn", lambda layers: convert.from_torch(convert.to_torch(layers))),
    "linen": ("Block_0/norm", lambda layers: convert.from_linen(convert.to_linen(layers))),
    "nnx": ("layers/0/norm", lambda layers: convert.from_nnx(convert.to_nnx(layers))),
    "keras": ("net/norm", lambda layers: convert.from_keras(convert.to_keras(layers))),
    "haiku": ("net/~/norm", haiku),
}


@pytest.mark.parametrize("framework", ROUND_TRIPS)
def test_what_is_written_reads_back(framework):
    name, round_trip = ROUND_TRIPS[framework]
    layers = {name: layer(0, 4), f"{name}_1": layer(1, 1)}
    back = round_trip(layers)
    chex.assert_trees_all_equal(back, layers)
    assert list(back) == list(layers)


@pytest.mark.parametrize("framework", ["torch", "linen", "nnx", "keras"])
def test_one_layer_alone_has_an_empty_path(framework):
    _, round_trip = ROUND_TRIPS[framework]
    chex.assert_trees_all_equal(round_trip({"": layer(0, 4)}), {"": layer(0, 4)})


def torch_state(**changes):
    """Two batch norms among other things; a change to None takes a key away."""
    layers = {"stem.bn": layer(0, 4), "blocks.0.bn": layer(1, 3)}
    state = convert.to_torch(layers) | {
        "stem.bn.num_batches_tracked": np.asarray(7),
        "stem.conv.weight": np.ones((4, 3, 1, 1), np.float32),
        "norm.weight": np.ones(5, np.float32),  # a layer norm
        "norm.bias": np.ones(5, np.float32),
    }
    state |= {key.replace("__", "."): value for key, value in changes.items()}
    return layers, {key: value for key, value in state.items() if value is not None}


def test_the_batch_norms_of_a_model_are_found_among_its_layers():
    layers, state = torch_state()
    chex.assert_trees_all_equal(convert.from_torch(state), layers)
    assert list(convert.from_torch(state, prefix="blocks")) == ["blocks.0.bn"]
    assert list(convert.from_torch(state, prefix="stem.bn")) == ["stem.bn"]


def test_a_prefix_is_a_module_and_not_the_beginning_of_a_name():
    _, state = torch_state()
    with pytest.raises(ValueError, match=r"no batch norm in 'ste'"):
        convert.from_torch(state, prefix="ste")


def test_missing_and_unknown_keys_are_all_listed_by_their_path():
    _, state = torch_state(
        stem__bn__running_var=None, blocks__0__bn__weight=None, blocks__0__bn__wieght=np.ones(3)
    )
    with pytest.raises(ValueError, match="missing keys") as error:
        convert.from_torch(state)
    for key in ("'stem.bn.running_var'", "'blocks.0.bn.weight'", "'blocks.0.bn.wieght'"):
        assert key in str(error.value)
    assert "stem.conv" not in str(error.value)


@pytest.mark.parametrize(
    ("read", "state", "named"),
    [
        (convert.from_linen, {"batch_stats": {"n": {"mean": np.ones(2)}}}, "params/n/scale"),
        (convert.from_nnx, {"n": {0: {"var": np.ones(2)}}}, "n/0/mean"),
        (convert.from_keras, {"n/moving_mean": np.ones(2)}, "n/moving_variance"),
        (convert.from_keras, {"n/moving_mean": np.ones(2), "n/renorm_mean": 1}, "n/renorm_mean"),
        (
            lambda state: convert.from_haiku({}, state),
            {"n/~/mean_ema": {"average": np.ones((1, 2)), "hiden": 1}},
            "n/~/mean_ema/hiden",
        ),
    ],
)
def test_every_framework_names_the_full_path(read, state, named):
    with pytest.raises(ValueError, match=f"'{named}'"):
        read(state)


def test_a_layer_that_lacks_both_scale_and_bias_has_no_affine_map():
    layers, state = torch_state(blocks__0__bn__weight=None, blocks__0__bn__bias=None)
    read = convert.from_torch(state)
    chex.assert_trees_all_equal(read["stem.bn"], layers["stem.bn"])
    chex.assert_trees_all_equal(read["blocks.0.bn"][0], jbn.init(3)[0])


def test_statistics_alone_have_lost_their_parameters():
    statistics = {"batch_stats": convert.to_linen({"n": layer(0, 4)})["batch_stats"]}
    with pytest.raises(ValueError, match=r"\['params/n/scale', 'params/n/bias'\]"):
        convert.from_linen(statistics)
    read = convert.from_linen(statistics, use_scale=False, use_bias=False)
    chex.assert_trees_all_equal(read["n"], (jbn.init(4)[0], layer(0, 4)[1]))


def test_a_layer_without_a_scale_hides_no_other_that_is_lost():
    layers, state = torch_state(blocks__0__bn__weight=None)
    with pytest.raises(ValueError, match=r"missing keys \['blocks.0.bn.weight'\].*\{path: False\}"):
        convert.from_torch(state)
    read = convert.from_torch(state, use_scale={"blocks.0.bn": False})
    np.testing.assert_array_equal(read["blocks.0.bn"][0].scale, 1)
    np.testing.assert_array_equal(read["blocks.0.bn"][0].bias, layers["blocks.0.bn"][0].bias)
    del state["stem.bn.weight"]
    with pytest.raises(ValueError, match=r"missing keys \['stem.bn.weight'\]"):
        convert.from_torch(state, use_scale={"blocks.0.bn": False})
    assert convert.from_torch(state, use_scale=False).keys() == layers.keys()


def test_arrays_beside_the_four_are_ignored_by_name():
    crossq = convert.to_linen({"critic/BatchRenorm_0": layer(0, 4)})
    crossq["batch_stats"]["critic"]["BatchRenorm_0"] |= {
        "steps": np.asarray(7), "r_max": np.asarray(3.0), "d_max": np.asarray(5.0)
    }  # fmt: skip
    with pytest.raises(ValueError, match=r"ignore=\['d_max', 'r_max', 'steps'\]") as error:
        convert.from_linen(crossq)
    assert "use_scale" not in str(error.value)
    read = convert.from_linen(crossq, ignore=("steps", "r_max", "d_max"))
    chex.assert_trees_all_equal(read, {"critic/BatchRenorm_0": layer(0, 4)})
    written = convert.to_linen({"critic/BatchRenorm_0": layer(1, 4)}, into=crossq)
    assert written["batch_stats"]["critic"]["BatchRenorm_0"]["steps"] == 7
    statistics = {"batch_stats": crossq["batch_stats"]}
    with pytest.raises(ValueError, match="missing keys"):
        convert.from_linen(statistics, ignore=("steps", "r_max", "d_max"))


def test_a_layer_is_ignored_by_its_path_or_its_modules():
    _, state = torch_state(blocks__0__bn__running_var=None)
    assert convert.from_torch(state, ignore=["blocks"]).keys() == {"stem.bn"}
    assert convert.from_torch(state, ignore="blocks.0.bn").keys() == {"stem.bn"}
    with pytest.raises(ValueError, match=r"\['blocks.0.bn.running_var'\], unknown keys \[\]\.$"):
        convert.from_torch(state, ignore=["block"])


def test_a_scale_or_bias_is_not_lost_in_writing():
    with pytest.raises(ValueError, match=r"'n' has a scale that is not 1"):
        convert.to_torch({"n": layer(0, 4)}, use_scale=False)
    with pytest.raises(ValueError, match=r"'n' has a bias that is not 0"):
        convert.to_linen({"n": layer(0, 4)}, use_bias=False)
    written = convert.to_linen({"n": jbn.init(4)}, use_scale=False, use_bias=False)
    assert written.keys() == {"batch_stats"}
    params, _ = convert.to_haiku({"n": jbn.init(4)}, ndim=2, use_scale=False, use_bias=False)
    assert params == {}


@pytest.mark.parametrize(
    ("value", "error", "message"),
    [
        (np.array([1, -1e-3, 1]), ValueError, r"blocks.0.bn.running_var holds a negative variance"),
        (np.array([1, np.nan, 1]), ValueError, r"blocks.0.bn.running_var .* not finite"),
        (np.ones(4), ValueError, r"one shape, got .*'blocks.0.bn.running_var': \(4,\)"),
        (np.ones((1, 3)), ValueError, r"blocks.0.bn.running_var must have one axis.*\(1, 3\)"),
        (np.ones(3, int), TypeError, r"blocks.0.bn.running_var must hold floating-point"),
        ("ones", TypeError, r"blocks.0.bn.running_var must hold floating-point"),
        (np.ma.array(np.ones(3)), TypeError, r"blocks.0.bn.running_var is a masked array"),
        (np.ones(3, np.longdouble), TypeError, r"blocks.0.bn.running_var holds float128"),
    ],
)
def test_a_damaged_vector_is_named(value, error, message):
    _, state = torch_state(blocks__0__bn__running_var=value)
    with pytest.raises(error, match=message):
        convert.from_torch(state)


def test_big_endian_vectors_are_read_rightly():
    _, state = torch_state()
    foreign = {key: np.asarray(value).astype(">f4") for key, value in state.items()}
    chex.assert_trees_all_equal(convert.from_torch(foreign), convert.from_torch(state))


def test_what_numpy_cannot_read_is_named():
    class Tensor:
        shape = (3,)

        def __array__(self, dtype=None, copy=None):
            raise TypeError("unsupported ScalarType BFloat16")

    _, state = torch_state(blocks__0__bn__bias=Tensor())
    with pytest.raises(TypeError, match=r"blocks.0.bn.bias: numpy cannot read this Tensor.*BFloat"):
        convert.from_torch(state)


def test_no_batch_norm_says_what_was_looked_for():
    with pytest.raises(ValueError, match=r"'batch_stats/mean'.*\['params/norm/scale'\]"):
        convert.from_linen({"params": {"norm": {"scale": np.ones(3)}}})


def test_statistics_are_kept_in_float32_and_parameters_in_their_type():
    _, state = torch_state()
    half = {k: v.astype(np.float16) if v.dtype == np.float32 else v for k, v in state.items()}
    affine, stats = convert.from_torch(half)["stem.bn"]
    assert {v.dtype for v in affine} == {jnp.dtype(jnp.float16)}
    assert {v.dtype for v in stats} == {jnp.dtype(jnp.float32)}


def test_haiku_squeezes_ones_only():
    params, state = convert.to_haiku({"n": layer(0, 4)}, ndim=2)
    params["n"]["scale"] = np.ones((2, 2), np.float32)
    with pytest.raises(ValueError, match=r"n/scale must have one axis.*\(2, 2\)"):
        convert.from_haiku(params, state)


@pytest.mark.parametrize("arguments", [{"step": 3}, {"momentum": 0.9}, {"step": 0, "momentum": 1}])
def test_haiku_needs_a_step_and_a_momentum_together(arguments):
    with pytest.raises(ValueError, match="step"):
        convert.to_haiku({"n": layer(0, 4)}, ndim=2, **arguments)


@pytest.mark.parametrize("momentum", [0.0, 0.75, 0.999, 1.0])
def test_debiased_momentum_makes_the_debiased_average(momentum):
    values = np.random.default_rng(0).normal(size=12)
    average = jnp.zeros(())
    for step, value in enumerate(values):
        m = jbn.debiased_momentum(step, momentum)
        average = m * average + (1 - m) * value
        weights = np.float64(momentum) ** np.arange(step, -1, -1)
        expected = np.sum(weights * values[: step + 1]) / np.sum(weights)
        np.testing.assert_allclose(average, expected, rtol=2e-5, atol=2e-6)


def test_nothing_of_another_framework_is_imported():
    code = "import sys, jbn.convert; print({'flax', 'torch', 'haiku', 'keras'} & set(sys.modules))"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "set()"
