"""PyTorch's layers in Flax: the same outputs, from axes (N, C, *window) and (N, *window, C)."""

import flax.linen as nn
import jax
import numpy as np
import pytest
from flax import nnx

import jbn.linen
import jbn.nnx
from jbn.convert import model_from_torch, model_to_torch

torch = pytest.importorskip("torch", reason="torch is not installed")
VALID = {"padding": "VALID"}
LAYERS = {
    "dense": (torch.nn.Linear(3, 4), nn.Dense(4), (5, 3)),
    "conv1d": (torch.nn.Conv1d(3, 4, 2), nn.Conv(4, 2, **VALID), (2, 3, 5)),
    "conv2d": (torch.nn.Conv2d(3, 4, (2, 3)), nn.Conv(4, (2, 3), **VALID), (2, 3, 5, 5)),
    "conv3d": (torch.nn.Conv3d(3, 4, 2), nn.Conv(4, (2, 2, 2), **VALID), (2, 3, 4, 4, 4)),
    "no bias": (
        torch.nn.Conv1d(3, 4, 2, bias=False),
        nn.Conv(4, 2, use_bias=False, **VALID),
        (2, 3, 5),
    ),
    "groups": (
        torch.nn.Conv2d(4, 6, 2, groups=2),
        nn.Conv(6, (2, 2), feature_group_count=2, **VALID),
        (2, 4, 5, 5),
    ),
    "depthwise": (
        torch.nn.Conv1d(4, 8, 2, groups=4),
        nn.Conv(8, 2, feature_group_count=4, **VALID),
        (2, 4, 5),
    ),
    "layer norm": (torch.nn.LayerNorm(3), nn.LayerNorm(epsilon=1e-5), (5, 3)),
    "group norm": (torch.nn.GroupNorm(2, 4), nn.GroupNorm(2, epsilon=1e-5), (2, 4, 5)),
    "instance norm": (
        torch.nn.InstanceNorm1d(3, affine=True),
        nn.InstanceNorm(epsilon=1e-5),
        (2, 3, 5),
    ),
    "transposed": (
        torch.nn.ConvTranspose2d(3, 3, (2, 3), 2),
        nn.ConvTranspose(3, (2, 3), (2, 2), transpose_kernel=True, **VALID),
        (2, 3, 4, 4),
    ),
}


def randomise(model):
    with torch.no_grad():
        for value in model.state_dict().values():
            if value.is_floating_point():
                value.uniform_(0.5, 1.5)
    return model.eval()


def assert_close(y, expected):
    expected = expected.detach().numpy()
    np.testing.assert_allclose(y, expected, rtol=0, atol=2e-6 * np.max(np.abs(expected)))


def assert_equal_states(state, model):
    assert state.keys() == model.state_dict().keys()
    for key, value in model.state_dict().items():
        torch.testing.assert_close(state[key], value, rtol=0, atol=0)


@pytest.mark.parametrize("name", LAYERS)
def test_a_layer_there_and_back(name):
    theirs, ours, shape = LAYERS[name]
    randomise(theirs)
    x = np.random.default_rng(0).normal(size=shape).astype(np.float32)
    inputs = np.moveaxis(x, 1, -1)
    options = {"transpose_kernel": True} if name == "transposed" else {}
    start = jax.eval_shape(ours.init, jax.random.key(0), inputs)
    variables, _ = model_from_torch(theirs, into=start, **options)
    y = jax.jit(ours.apply)(variables, inputs)
    assert_close(np.moveaxis(y, -1, 1), theirs(torch.from_numpy(x)))
    state, _ = model_to_torch(variables, into=theirs, **options)
    assert_equal_states(state, theirs)


def test_an_embedding_is_told_from_a_dense_layer():
    net = torch.nn.ModuleDict(
        {"a": torch.nn.Embedding(5, 3), "b": torch.nn.Linear(3, 5, bias=False)}
    )
    into = {"params": {"e": {"embedding": np.ones((5, 3))}, "k": {"kernel": np.ones((3, 5))}}}
    with pytest.raises(ValueError, match=r"'a' fits \['e', 'k'\]"):  # of a matrix of either kind
        model_from_torch(net, into=into)
    new, moved = model_from_torch(net, into=into, rename={"a": "e"})
    assert moved == {"a": "e", "b": "k"}
    np.testing.assert_array_equal(new["params"]["e"]["embedding"], net["a"].weight.detach())
    np.testing.assert_array_equal(new["params"]["k"]["kernel"], net["b"].weight.detach().T)


@pytest.mark.parametrize("named", [False, True], ids=["module", "name"])
def test_a_transposed_convolution_needs_a_word(named):
    net = torch.nn.ModuleDict({"up": torch.nn.ConvTranspose2d(3, 3, 2)})
    into = {"params": {"ConvTranspose_0" if named else "up": {"kernel": np.ones((2, 2, 3, 3))}}}
    into["params"][next(iter(into["params"]))]["bias"] = np.ones(3)
    with pytest.raises(
        ValueError, match="'up' to .* is a transposed convolution.*transpose_kernel=True"
    ):
        model_from_torch(net.state_dict() if named else net, into=into)


def flattening():
    theirs = torch.nn.Sequential(
        torch.nn.Conv2d(3, 4, 2),
        torch.nn.Flatten(),
        torch.nn.BatchNorm1d(4 * 2 * 3),
        torch.nn.Linear(4 * 2 * 3, 2),
    )
    rngs = nnx.Rngs(0)
    ours = nnx.Sequential(
        nnx.Conv(3, 4, (2, 2), padding="VALID", rngs=rngs),
        lambda x: x.reshape(len(x), -1),
        jbn.nnx.BatchNorm(24, use_running_average=True, rngs=rngs),
        nnx.Linear(24, 2, rngs=rngs),
    )
    return randomise(theirs), ours


def test_a_flattened_feature_map_is_put_in_order():
    theirs, ours = flattening()
    with pytest.raises(ValueError, match=r"'3' reads 24 features.*flatten=\{'3': \(channels"):
        model_from_torch(theirs, into=nnx.state(ours), rename="layers/{}".format)
    options = {"flatten": {"2": (4, 2, 3), "3": (4, 2, 3)}}
    new, moved = model_from_torch(theirs, into=ours, rename="layers/{}".format, **options)
    nnx.update(ours, new)
    x = np.random.default_rng(0).normal(size=(2, 3, 3, 4)).astype(np.float32)
    assert_close(ours(np.moveaxis(x, 1, -1)), theirs(torch.from_numpy(x)))
    back = {there: here for here, there in moved.items()}
    with pytest.raises(ValueError, match="'3' reads 24 features"):
        model_to_torch(ours, into=theirs, rename=back)
    state, _ = model_to_torch(ours, into=theirs, rename=back, **options)
    assert_equal_states(state, theirs)


def test_instance_norm_with_running_statistics_is_refused():
    norm = torch.nn.InstanceNorm1d(3, affine=True, track_running_stats=True)
    into = jbn.linen.BatchNorm(True).init(jax.random.key(0), np.ones((2, 3), np.float32))
    with pytest.raises(ValueError, match="'' is an InstanceNorm"):
        model_from_torch(norm, into=into)
    with pytest.raises(ValueError, match="'' is an InstanceNorm"):
        model_to_torch(into, into=norm)
