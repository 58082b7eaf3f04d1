"""A ResNet-18 with torchvision's names, from PyTorch into Linen and NNX, and back."""

import re

import flax.linen as nn
import jax
import numpy as np
import pytest
from flax import nnx

import jbn.linen
import jbn.nnx
from jbn.convert import model_from_torch, model_to_torch

torch = pytest.importorskip("torch", reason="torch is not installed")
WIDTH, CLASSES = 8, 10  # torchvision has 64 and 1000
STAGES = [(stage, WIDTH * 2**stage, 1 + (stage > 0)) for stage in range(4)]


def torch_block(features_in, features, stride):
    class Block(torch.nn.Module):
        def __init__(self):
            super().__init__()
            conv, norm = torch.nn.Conv2d, torch.nn.BatchNorm2d
            self.conv1 = conv(features_in, features, 3, stride, 1, bias=False)
            self.bn1 = norm(features)
            self.conv2 = conv(features, features, 3, 1, 1, bias=False)
            self.bn2 = norm(features)
            self.downsample = None
            if stride > 1:
                down = conv(features_in, features, 1, stride, bias=False), norm(features)
                self.downsample = torch.nn.Sequential(*down)

        def forward(self, x):
            y = self.bn2(self.conv2(self.bn1(self.conv1(x)).relu()))
            return (y + (x if self.downsample is None else self.downsample(x))).relu()

    return Block()


class TorchResNet(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.conv1 = torch.nn.Conv2d(3, WIDTH, 7, 2, 3, bias=False)
        self.bn1 = torch.nn.BatchNorm2d(WIDTH)
        for stage, features, stride in STAGES:
            blocks = (
                torch_block(features // stride, features, stride),
                torch_block(features, features, 1),
            )
            setattr(self, f"layer{stage + 1}", torch.nn.Sequential(*blocks))
        self.fc = torch.nn.Linear(8 * WIDTH, CLASSES)

    def forward(self, x):
        x = torch.nn.functional.max_pool2d(self.bn1(self.conv1(x)).relu(), 3, 2, 1)
        x = self.layer4(self.layer3(self.layer2(self.layer1(x))))
        return self.fc(x.mean((2, 3)))


def pool(x):
    return nn.max_pool(x, (3, 3), (2, 2), ((1, 1), (1, 1)))


def linen_norm(name):
    return jbn.linen.BatchNorm(use_running_average=True, momentum=0.9, name=name)


class LinenBlock(nn.Module):
    features: int
    stride: int

    @nn.compact
    def __call__(self, x):
        def conv(name, size, stride):
            return nn.Conv(
                self.features, (size, size), stride, size // 2, use_bias=False, name=name
            )

        y = nn.relu(linen_norm("bn1")(conv("conv1", 3, self.stride)(x)))
        y = linen_norm("bn2")(conv("conv2", 3, 1)(y))
        if self.stride > 1:
            x = linen_norm("downsample_1")(conv("downsample_0", 1, self.stride)(x))
        return nn.relu(x + y)


class LinenResNet(nn.Module):
    @nn.compact
    def __call__(self, x):
        x = nn.Conv(WIDTH, (7, 7), 2, 3, use_bias=False, name="conv1")(x)
        x = pool(nn.relu(linen_norm("bn1")(x)))
        for stage, features, stride in STAGES:
            x = LinenBlock(features, stride, name=f"layer{stage + 1}_0")(x)
            x = LinenBlock(features, 1, name=f"layer{stage + 1}_1")(x)
        return nn.Dense(CLASSES, name="fc")(x.mean((1, 2)))


RNGS = nnx.Rngs(0)


def nnx_conv(features_in, features, size, stride):
    options = {"strides": stride, "padding": size // 2, "use_bias": False, "rngs": RNGS}
    return nnx.Conv(features_in, features, (size, size), **options)


def nnx_norm(features):
    return jbn.nnx.BatchNorm(features, momentum=0.9, use_running_average=True, rngs=RNGS)


class NnxBlock(nnx.Module):
    def __init__(self, features_in, features, stride):
        self.conv1 = nnx_conv(features_in, features, 3, stride)
        self.bn1 = nnx_norm(features)
        self.conv2 = nnx_conv(features, features, 3, 1)
        self.bn2 = nnx_norm(features)
        down = [nnx_conv(features_in, features, 1, stride), nnx_norm(features)]
        self.downsample = nnx.List(down if stride > 1 else [])

    def __call__(self, x):
        y = self.bn2(self.conv2(nnx.relu(self.bn1(self.conv1(x)))))
        for layer in self.downsample:
            x = layer(x)
        return nnx.relu(x + y)


class NnxResNet(nnx.Module):
    def __init__(self):
        self.conv1 = nnx_conv(3, WIDTH, 7, 2)
        self.bn1 = nnx_norm(WIDTH)
        for stage, features, stride in STAGES:
            blocks = [
                NnxBlock(features // stride, features, stride),
                NnxBlock(features, features, 1),
            ]
            setattr(self, f"layer{stage + 1}", nnx.List(blocks))
        self.fc = nnx.Linear(8 * WIDTH, CLASSES, rngs=RNGS)

    def __call__(self, x):
        x = pool(nnx.relu(self.bn1(self.conv1(x))))
        for layer in (*self.layer1, *self.layer2, *self.layer3, *self.layer4):
            x = layer(x)
        return self.fc(x.mean((1, 2)))


@pytest.fixture(scope="module")
def resnet():
    torch.manual_seed(0)
    model = TorchResNet().eval()
    with torch.no_grad():
        for module in model.modules():
            if isinstance(module, torch.nn.BatchNorm2d):
                module.weight.uniform_(0.5, 1.5)
                module.bias.normal_()
                module.running_mean.normal_()
                module.running_var.uniform_(0.5, 2)
    x = torch.randn(2, 3, 32, 32)
    return model, np.moveaxis(x.numpy(), 1, -1), model(x).detach().numpy()


def assert_close(y, logits):
    assert np.max(np.abs(y - logits)) <= 1e-5 * np.max(np.abs(logits))


def assert_equal_states(new, model):
    TorchResNet().load_state_dict(new, strict=True)
    for key, value in model.state_dict().items():
        torch.testing.assert_close(new[key], value, rtol=0, atol=0)


def test_into_linen_and_back(resnet):
    model, x, logits = resnet
    variables = jax.eval_shape(LinenResNet().init, jax.random.key(0), x)
    variables, moved = model_from_torch(
        model, into=variables, rename=lambda path: re.sub(r"\.(\d)", r"_\1", path).replace(".", "/")
    )
    assert moved["layer2.0.downsample.1"] == "layer2_0/downsample_1"
    assert len(moved) == 41
    assert_close(jax.jit(LinenResNet().apply)(variables, x), logits)
    state, _ = model_to_torch(
        variables, into=TorchResNet(), rename={there: here for here, there in moved.items()}
    )
    assert_equal_states(state, model)


def test_into_nnx_and_back(resnet):
    model, x, logits = resnet
    ours = NnxResNet()
    new, moved = model_from_torch(model.state_dict(), into=ours)
    nnx.update(ours, new)
    assert all(there == here.replace(".", "/") for here, there in moved.items())
    assert_close(nnx.jit(lambda model, x: model(x))(ours, x), logits)
    state, _ = model_to_torch(
        ours, into=TorchResNet().state_dict(), rename=lambda p: p.replace("/", ".")
    )
    assert_equal_states(state, model)
