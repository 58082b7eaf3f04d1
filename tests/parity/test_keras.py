"""Keras: the same inference and the same next step, with its epsilon of 1e-3."""

import chex
import flax.linen as nn
import jax
import numpy as np
import pytest

import jbn.linen
from jbn.convert import from_keras, model_from_keras, model_to_keras, to_keras

keras = pytest.importorskip("keras", reason="keras is not installed")
MOMENTUM, EPSILON = 0.8, 1e-3


def network(shape):
    norm = keras.layers.BatchNormalization(momentum=MOMENTUM, name="norm")
    assert norm.epsilon == EPSILON
    return keras.Sequential([keras.Input(shape[1:]), norm], name="net")


def weights(net):
    return {v.path: np.asarray(v) for v in net.variables}


def trained(batches, affine):
    net = network(batches[0].shape)
    net.layers[-1].gamma.assign(affine[0])
    net.layers[-1].beta.assign(affine[1])
    for x in batches[:-1]:
        net(x, training=True)
    return net


def test_inference_and_the_next_step_are_equal(batches, affine):
    net, x = trained(batches, affine), batches[-1]
    ((path, (gamma, stats)),) = from_keras(weights(net)).items()
    assert path == "net/norm"
    y = np.asarray(net(x, training=False))
    ours = jbn.normalize(x, *stats, *gamma, epsilon=EPSILON)
    np.testing.assert_allclose(ours, y, rtol=1e-6, atol=2e-6)

    y = np.asarray(net(x, training=True))
    ours, stats = jbn.batch_norm(x, gamma, stats, momentum=MOMENTUM, epsilon=EPSILON)
    np.testing.assert_allclose(ours, y, rtol=1e-6, atol=2e-6)
    _, theirs = from_keras(weights(net))[path]
    np.testing.assert_allclose(stats.mean, theirs.mean, rtol=1e-6, atol=1e-6)
    np.testing.assert_allclose(stats.var, theirs.var, rtol=1e-6, atol=1e-6)


def test_keras_loads_what_is_written(batches, affine):
    net, x = trained(batches, affine), batches[-1]
    new = network(batches[0].shape)
    written = to_keras(from_keras(weights(net)))
    assert written.keys() == {v.path for v in new.variables}
    for variable in new.variables:
        variable.assign(written[variable.path])
    np.testing.assert_array_equal(new(x, training=False), net(x, training=False))


def test_the_state_of_renorm_is_read_without_what_renormalises():
    net = keras.Sequential([keras.Input((5,)), keras.layers.BatchNormalization(renorm=True)])
    with pytest.raises(ValueError, match=r"unknown keys .*ignore=\[.*'renorm_mean'"):
        from_keras(weights(net))
    read = from_keras(net, ignore=("moving_stddev", "renorm_mean", "renorm_stddev"))
    np.testing.assert_array_equal(next(iter(read.values()))[1].var, 1)


def test_a_model_says_which_layer_has_no_scale():
    norms = [keras.layers.BatchNormalization(name=f"bn{i}", scale=i != 1) for i in range(3)]
    net = keras.Sequential([keras.Input((5,)), *norms], name="net")
    with pytest.raises(ValueError, match=r"missing keys \['net/bn1/gamma'\]"):
        from_keras(weights(net))
    layers = from_keras(weights(net), use_scale={"net/bn1": False})
    assert from_keras(net).keys() == layers.keys()
    assert to_keras(layers, into=net).keys() == {v.path for v in net.weights}


def test_two_variables_of_one_path_are_refused():
    class Model(keras.Model):
        def __init__(self):
            super().__init__()
            self.one, self.two = (keras.layers.BatchNormalization(name="bn") for _ in range(2))

        def call(self, x):
            return self.two(self.one(x))

    net = Model()
    net(np.ones((2, 3), np.float32))
    with pytest.raises(ValueError, match="have one path"):
        from_keras(net)


class Mobile(nn.Module):
    @nn.compact
    def __call__(self, x):
        norm = {"use_running_average": True, "epsilon": EPSILON}
        depthwise = {"feature_group_count": 4, "padding": "VALID"}
        x = nn.Conv(4, (2, 2), name="stem")(x)
        x = nn.Conv(8, (2, 2), **depthwise, name="depthwise")(x)
        x = jbn.linen.BatchNorm(**norm, name="norm_a")(x)
        x = nn.Conv(3, (1, 1), name="pointwise")(x)
        x = jbn.linen.BatchNorm(**norm, use_scale=False, name="norm_b")(x)
        up = {"padding": "VALID", "transpose_kernel": True}
        x = nn.ConvTranspose(3, (2, 2), **up, name="up")(x)
        return nn.Dense(5, name="head")(x.reshape(len(x), -1))


def mobile():
    layers = keras.layers
    net = keras.Sequential(
        [
            keras.Input((4, 4, 3)),
            layers.Conv2D(4, 2, padding="same", name="stem"),
            layers.DepthwiseConv2D(2, depth_multiplier=2, name="dw"),
            layers.BatchNormalization(name="norm_a"),
            layers.Conv2D(3, 1, name="pointwise"),
            layers.BatchNormalization(name="norm_b", scale=False),
            layers.Conv2DTranspose(3, 2, name="up"),
            layers.Flatten(),
            layers.Dropout(0.5),
            layers.Dense(5, name="head"),
        ],
        name="net",
    )
    rng = np.random.default_rng(0)
    for variable in net.weights:
        variable.assign(rng.uniform(0.5, 1.5, variable.shape))
    return net


def test_a_whole_model_there_and_back():
    net, x = mobile(), np.random.default_rng(1).normal(size=(2, 4, 4, 3)).astype(np.float32)
    start = jax.eval_shape(Mobile().init, jax.random.key(0), x)
    names = {"net/dw": "depthwise"} | {
        f"net/{name}": name for name in ("stem", "norm_a", "pointwise", "norm_b", "up", "head")
    }
    options = {"rename": names, "transpose_kernel": True}
    with pytest.raises(ValueError, match="'net/up' to 'up' is a transposed convolution"):
        model_from_keras(net, into=start, rename=names)
    variables, moved = model_from_keras(net, into=start, **options)
    assert moved == names
    y = np.asarray(net(x, training=False))
    ours = jax.jit(Mobile().apply)(variables, x)
    np.testing.assert_allclose(ours, y, rtol=0, atol=2e-6 * np.max(np.abs(y)))
    back = {there: here for here, there in names.items()}
    new, _ = model_to_keras(variables, into=net, rename=back, transpose_kernel=True)
    for variable in net.weights:
        np.testing.assert_array_equal(new[variable.path], variable)

    plain = weights(net)
    with pytest.raises(ValueError, match=r"'net/dw' does not fit 'depthwise'.*\(2, 2, 4, 2\)"):
        model_from_keras(plain, into=start, **options)  # whose name says nothing
    plain = {path.replace("dw", "depthwise"): value for path, value in plain.items()}
    new, _ = model_from_keras(plain, into=start, rename=lambda path: path.removeprefix("net/"))
    chex.assert_trees_all_equal(new, variables)
