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


def test_without_an_affine_map_and_in_half_precision():
    net = torch.nn.BatchNorm1d(3, affine=False)
    assert from_torch(net.state_dict(), use_scale=False, use_bias=False).keys() == {""}
    with pytest.raises(TypeError, match=r"weight: numpy cannot read this Tensor.*\.float\(\)"):
        from_torch(torch.nn.BatchNorm1d(3).to(torch.bfloat16).state_dict())


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
