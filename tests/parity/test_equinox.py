"""Equinox: the same inference in both its modes, and the same next step."""

from functools import partial

import jax
import numpy as np
import pytest

import jbn
from jbn.convert import from_equinox, to_equinox

eqx = pytest.importorskip("equinox", reason="equinox is not installed")
MOMENTUM = 0.8


def network(mode):
    def make():
        norm = eqx.nn.BatchNorm(5, axis_name="batch", momentum=MOMENTUM, mode=mode)
        return eqx.nn.Sequential([eqx.nn.Identity(), norm])

    return eqx.nn.make_with_state(make)()


def run(net, state, x, inference):
    net = eqx.nn.inference_mode(net, inference)
    apply = jax.vmap(net, axis_name="batch", in_axes=(0, None), out_axes=(0, None))
    y, state = apply(np.moveaxis(x, -1, 1), state)
    return np.moveaxis(y, 1, -1), state


def trained(mode, batches, affine):
    net, state = network(mode)
    net = eqx.tree_at(lambda net: (net[1].weight, net[1].bias), net, affine)
    for x in batches[:-1]:
        _, state = run(net, state, x, False)
    return net, state


@pytest.mark.parametrize("mode", ["ema", "batch"])
def test_inference_and_the_next_step_are_equal(mode, batches, affine):
    net, state = trained(mode, batches, affine)
    x = batches[-1]
    ((path, (gamma, stats)),) = from_equinox(net, state).items()
    assert path == "layers[1]"
    y, _ = run(net, state, x, True)
    np.testing.assert_allclose(jbn.normalize(x, *stats, *gamma), y, rtol=1e-6, atol=2e-6)

    momentum = MOMENTUM if mode == "ema" else jbn.debiased_momentum(len(batches) - 1, MOMENTUM)
    stats = jbn.update_running(stats, jbn.batch_moments(x), momentum=momentum)
    _, theirs = from_equinox(net, run(net, state, x, False)[1])[path]
    np.testing.assert_allclose(stats.mean, theirs.mean, rtol=2e-6, atol=1e-6)
    np.testing.assert_allclose(stats.var, theirs.var, rtol=2e-6, atol=1e-6)


@pytest.mark.parametrize("mode", ["ema", "batch"])
def test_equinox_goes_on_from_what_is_written(mode, batches, affine):
    net, state = trained(mode, batches, affine)
    layers = from_equinox(net, state)
    x = batches[-1]
    new, new_state = to_equinox(layers, *network(mode))
    np.testing.assert_allclose(
        run(new, new_state, x, True)[0], run(net, state, x, True)[0], rtol=1e-6, atol=1e-6
    )
    stats = jbn.update_running(layers["layers[1]"][1], jbn.batch_moments(x), momentum=MOMENTUM)
    _, theirs = from_equinox(new, run(new, new_state, x, False)[1])["layers[1]"]
    np.testing.assert_allclose(stats.mean, theirs.mean, rtol=2e-6, atol=1e-6)
    np.testing.assert_allclose(stats.var, theirs.var, rtol=2e-6, atol=1e-6)


@pytest.mark.parametrize("mode", ["ema", "batch"])
def test_an_ensemble_is_a_stack(mode, batches, affine):
    def make(scale):
        net, state = network(mode)
        return eqx.tree_at(lambda net: net[1].weight, net, affine[0] * scale), state

    nets, states = eqx.filter_vmap(make)(np.float32([1, 2]))
    train = eqx.filter_vmap(partial(run, inference=False), in_axes=(eqx.if_array(0), 0, 0))
    infer = eqx.filter_vmap(partial(run, inference=True), in_axes=(eqx.if_array(0), 0, None))
    for x in batches[:2]:
        _, states = train(nets, states, np.stack([x, 3 * x]))
    layers = from_equinox(nets, states)
    (gammas, stats) = layers["layers[1]"]
    assert stats.mean.shape == (2, 5)
    y, _ = infer(nets, states, batches[-1])
    for i in range(2):
        ours = jbn.normalize(batches[-1], *(v[i] for v in (*stats, *gammas)))
        np.testing.assert_allclose(ours, y[i], rtol=1e-6, atol=2e-6)
    again, _ = infer(
        *to_equinox(layers, *eqx.filter_vmap(make)(np.zeros(2, np.float32))), batches[-1]
    )
    np.testing.assert_allclose(again, y, rtol=1e-6, atol=1e-6)


def test_what_does_not_fit_is_named():
    net, state = network("ema")
    with pytest.raises(ValueError, match=r"no batch norm at \['nothing'\].*layers\[1\]"):
        to_equinox({"nothing": jbn.init(5)}, net, state)
    with pytest.raises(ValueError, match=r"'layers\[1\]' has features of shape \(5,\).*\(3,\)"):
        to_equinox({"layers[1]": jbn.init(3)}, net, state)
    with pytest.raises(ValueError, match="no batch norm"):
        from_equinox(eqx.nn.Identity(), state)
