"""Trace, sharpness and blocks of the Hessian against the dense Hessian in numpy."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.flatten_util import ravel_pytree
from losses import KEY, network, quadratic

from jbn import diagnostics


def dense(loss_fn, params):
    flat, unravel = ravel_pytree(params)
    return np.float64(jax.jit(jax.hessian(lambda w: loss_fn(unravel(w))))(flat))


def test_a_trace_by_probes_lies_within_its_error():
    loss_fn, params = network()
    hessian = dense(loss_fn, params)
    trace = jax.jit(lambda key: diagnostics.hessian_trace(loss_fn, params, key, probes=10))
    found = jax.vmap(trace)(jax.random.split(KEY, 400))
    # Of signs, the variance is twice the squares off the diagonal (Hutchinson).
    off = hessian - np.diag(np.diag(hessian))
    error = np.sqrt(2 * np.sum(off**2) / 10)
    np.testing.assert_allclose(found.trace.mean(), np.trace(hessian), atol=4 * error / 20)
    np.testing.assert_allclose(found.trace.std(), error, rtol=0.15)
    np.testing.assert_allclose(np.sqrt(np.mean(found.standard_error**2)), error, rtol=0.1)


def test_a_small_trace_is_exact():
    loss_fn, params = network()
    found = jax.jit(lambda p: diagnostics.hessian_trace(loss_fn, p, KEY))(params)
    np.testing.assert_allclose(found.trace, np.trace(dense(loss_fn, params)), rtol=1e-5)
    assert found.standard_error == 0
    with pytest.raises(ValueError, match="probes must be at least 2"):
        diagnostics.hessian_trace(loss_fn, params, KEY, probes=1)


@pytest.mark.parametrize("momentum", [0.0, 0.9])
def test_at_the_edge_gradient_descent_neither_grows_nor_dies(momentum):
    loss_fn, params = quadratic(np.array([9.0] + [1.0] * 11))
    sharp = jax.jit(partial(diagnostics.sharpness, loss_fn, params, KEY, momentum=momentum))
    one = sharp(learning_rate=1.0)
    np.testing.assert_allclose(one.eigenvalue, 9, rtol=1e-5)
    square = np.sum(np.float64(ravel_pytree(params)[0]) ** 2)
    np.testing.assert_allclose(one.scale_free, 9 * square, rtol=1e-5)
    assert one.residual < 1e-3
    for to_edge, grows in ((0.97, False), (1.03, True)):
        rate = to_edge / float(one.to_edge)
        np.testing.assert_allclose(sharp(learning_rate=rate).to_edge, to_edge, rtol=1e-4)
        w, velocity = 1.0, 0.0
        for _ in range(2000):  # heavy ball along the sharpest direction
            velocity = momentum * velocity + 9 * w
            w -= rate * velocity
        assert (abs(w) > 1) == grows


def test_sharpness_of_weights_without_a_scale():
    x = jax.random.normal(jax.random.key(0), (8, 3))

    def loss_fn(w):
        return jnp.mean(jnp.tanh(x @ w / jnp.sqrt(jnp.sum(w**2))) ** 3)

    w = jnp.array([1.0, -2.0, 0.5])
    sharp = jax.jit(partial(diagnostics.sharpness, loss_fn, key=KEY))
    small, large = sharp(w, learning_rate=0.1), sharp(10 * w, learning_rate=10.0)
    np.testing.assert_allclose(small.scale_free, large.scale_free, rtol=1e-4)
    np.testing.assert_allclose(small.to_edge, large.to_edge, rtol=1e-4)
    np.testing.assert_allclose(small.eigenvalue, 100 * large.eigenvalue, rtol=1e-4)
    for options in ({"learning_rate": 0.0}, {"learning_rate": 0.1, "momentum": 1.5}):
        with pytest.raises(ValueError, match=f"{[*options][-1]} must lie in"):
            diagnostics.sharpness(loss_fn, w, KEY, **options)


def test_layers_are_the_blocks_of_the_hessian():
    network_loss, params = network()
    params["layer_1"]["shift"] = params.pop("shift")

    def loss_fn(p):
        first = p["layer_1"]
        return network_loss({**p, "layer_1": {"kernel": first["kernel"]}, "shift": first["shift"]})

    hessian = dense(loss_fn, params)
    names = {"layer_1": 12, "layer_10": 9, "layer_2": 3}

    def measure(loss_fn, params):
        ends = diagnostics.hessian_eigenvalues(loss_fn, params, KEY, which="both")
        return ends.values, diagnostics.hessian_trace(loss_fn, params, KEY).trace

    layers = jax.jit(lambda p: diagnostics.per_layer(measure, loss_fn, p, depth=1))
    found, start = layers(params), 0
    assert list(found) == list(names)
    for name, size in names.items():
        values = np.linalg.eigvalsh(hessian[start : start + size, start : start + size])
        np.testing.assert_allclose(found[name][0], [values[-1], values[0]], atol=1e-5)
        np.testing.assert_allclose(found[name][1], values.sum(), atol=1e-5)
        start += size
