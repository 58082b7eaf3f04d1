"""PyTorch: the same inference, and the same next step with Bessel's correction."""

import numpy as np
import pytest

import jbn
from jbn.convert import from_torch, to_torch

torch = pytest.importorskip("torch", reason="torch is not installed")


def first(x):
    """Features on axis 1, where PyTorch has them."""
    return torch.from_numpy(np.ascontiguousarray(np.moveaxis(x, -1, 1)))


def last(y):
    return np.moveaxis(y.detach().numpy(), 1, -1)


def layer(x, momentum):
    kind = torch.nn.BatchNorm1d if x.ndim == 2 else torch.nn.BatchNorm2d
    return kind(5, momentum=momentum)


def trained(batches, affine, momentum=0.2):
    net = torch.nn.Sequential(torch.nn.Identity(), layer(batches[0], momentum))
    with torch.no_grad():
        net[1].weight[:], net[1].bias[:] = (torch.from_numpy(v) for v in affine)
        for x in batches[:-1]:
            net(first(x))
    return net


def test_inference_and_the_next_step_are_equal(batches, affine):
    net, x = trained(batches, affine), batches[-1]
    gamma, stats = from_torch(net.state_dict())["1"]
    y = last(net.eval()(first(x)))
    np.testing.assert_allclose(jbn.normalize(x, *stats, *gamma), y, rtol=1e-6, atol=1e-6)

    y = last(net.train()(first(x)))
    np.testing.assert_allclose(jbn.batch_norm(x, gamma, stats)[0], y, rtol=1e-6, atol=2e-6)
    moments = jbn.bessel_correction(jbn.batch_moments(x))
    stats = jbn.update_running(stats, moments, momentum=0.8)
    np.testing.assert_allclose(stats.mean, net[1].running_mean, rtol=1e-6, atol=1e-6)
    np.testing.assert_allclose(stats.var, net[1].running_var, rtol=1e-6, atol=1e-6)


def test_a_cumulative_average_goes_on_from_its_count(batches, affine):
    net, x = trained(batches, affine, momentum=None), batches[-1]
    state = net.state_dict()
    stats = from_torch(state)["1"][1]
    n = int(state["1.num_batches_tracked"])
    net(first(x))
    moments = jbn.bessel_correction(jbn.batch_moments(x))
    stats = jbn.update_running(stats, moments, momentum=n / (n + 1))
    np.testing.assert_allclose(stats.mean, net[1].running_mean, rtol=1e-6, atol=1e-6)
    np.testing.assert_allclose(stats.var, net[1].running_var, rtol=1e-6, atol=1e-6)


def test_pytorch_loads_what_is_written(batches, affine):
    net = trained(batches, affine)
    state = to_torch(from_torch(net.state_dict()))
    new = torch.nn.Sequential(torch.nn.Identity(), layer(batches[0], 0.2))
    new.load_state_dict({key: torch.from_numpy(value) for key, value in state.items()})
    x = first(batches[-1])
    torch.testing.assert_close(new.eval()(x), net.eval()(x), rtol=0, atol=0)


def test_half_precision_and_parameters_that_require_gradients():
    rng = np.random.default_rng(0)
    net = torch.nn.BatchNorm1d(3)
    with torch.no_grad():
        net.weight[:] = torch.from_numpy(rng.normal(size=3))
    ((affine, _),) = from_torch(dict(net.named_parameters()) | dict(net.named_buffers())).values()
    np.testing.assert_array_equal(affine.scale, net.weight.detach().numpy())
    ((affine, stats),) = from_torch(net.to(torch.bfloat16).state_dict()).values()
    assert affine.scale.dtype == "bfloat16"
    assert stats.var.dtype == "float32"
    np.testing.assert_array_equal(affine.scale.astype("float32"), net.weight.detach().float())
    new = to_torch({"": (affine, stats)}, into=net)
    torch.testing.assert_close(new, net.state_dict(), rtol=0, atol=0)
    assert new["weight"].dtype == torch.bfloat16


def test_one_layer_among_others_has_no_affine_map():
    norms = torch.nn.BatchNorm1d(3), torch.nn.BatchNorm1d(3, affine=False)
    net = torch.nn.Sequential(*norms)
    for given in (net, net.state_dict()):
        layers = from_torch(given)
        np.testing.assert_array_equal(layers["1"][0].scale, 1)
    net.load_state_dict(to_torch(layers, into=net))
    assert from_torch(norms[1]).keys() == {""}  # a module has not lost its parameters
    with pytest.raises(ValueError, match="missing keys"):
        from_torch(norms[1].state_dict())


def test_instance_norm_is_refused_where_a_module_tells_it():
    class Own(torch.nn.InstanceNorm2d):
        pass

    net = torch.nn.Sequential(
        torch.nn.BatchNorm2d(3), Own(3, affine=True, track_running_stats=True)
    )
    with pytest.raises(ValueError, match=r"'1' is an InstanceNorm.*ignore=\['1'\]"):
        from_torch(net)
    assert from_torch(net, ignore=["1"]).keys() == {"0"}
    with pytest.raises(ValueError, match="'1' is an InstanceNorm"):
        to_torch({"1": jbn.init(3)}, into=net)


def test_layers_without_running_statistics_are_not_taken_for_batch_norms():
    net = torch.nn.Sequential(
        torch.nn.LayerNorm(4), torch.nn.BatchNorm1d(4, track_running_stats=False)
    )
    with pytest.raises(ValueError, match="no batch norm"):
        from_torch(net.state_dict())


def test_layers_go_into_a_state_dict():
    rng = np.random.default_rng(0)
    model = torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.BatchNorm1d(4)).half()
    vectors = rng.random((4, 4)).astype(np.float32)
    layer = jbn.Affine(*vectors[:2]), jbn.RunningStats(*vectors[2:])
    state = to_torch({"norm": layer}, rename={"norm": "1"}, into=model.state_dict())
    model.load_state_dict(state)  # strict
    np.testing.assert_array_equal(model[1].running_var.numpy(), np.float16(vectors[3]))
    assert model[1].weight.dtype == torch.float16
