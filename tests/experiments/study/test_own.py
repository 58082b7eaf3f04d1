"""Set-ups of one's own, as configs that touch nothing else, and a study beside a loop by hand."""

import re
from functools import partial
from pathlib import Path

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pandas as pd
import pytest
import xarray as xr

from experiments.__main__ import main
from experiments.commands import run as run_command
from experiments.study import Norm
from experiments.study.model import find_model
from experiments.study.train import make_run

CONFIGS = Path(__file__).parents[3] / "configs" / "own"
SMALL = {"steps": 4, "evaluate-every": 2, "seeds": 0, "learning-rates": 0.01, "batch-size": 8}


@pytest.fixture
def here(tmp_path, monkeypatch):
    """A folder with the files that the configs name."""
    monkeypatch.chdir(tmp_path)
    rng = np.random.default_rng(0)
    x = rng.normal(size=(120, 20))
    table = pd.DataFrame(x, columns=[f"x{i}" for i in range(20)])
    table.assign(label=np.array(["a", "b", "c"])[np.arange(120) % 3]).to_csv(
        "table.csv", index=False
    )
    np.savez("regression.npz", x=x[:, :10], y=x[:, 0] - 2 * x[:, 1])
    return tmp_path


def carry_out(name, here, norms, **fields) -> xr.Dataset:
    fields = SMALL | {"norms": norms} | fields
    options = [f"--{field}={value}" for field, value in fields.items()]
    with jax.numpy_dtype_promotion("standard"):  # optax mixes types
        main(["run", str(CONFIGS / f"{name}.py"), "--out", str(here / name), *options])
    return xr.load_dataset(here / name / "metrics.nc")


def test_configs_are_short():
    for path in CONFIGS.glob("*.py"):
        code = path.read_text().split('"""')[2]
        assert sum(bool(line.strip()) for line in code.splitlines()) < 25, path


TABLE = [f"Dense_{i}" for i in range(5)], ["norm_1", "norm_2", "norm_3", "output"]
CNN = ["Conv_0", "Conv_1", "Dense_0"], ["norm_1", "norm_2", "output"]


@pytest.mark.parametrize(
    ("name", "norms", "fields", "paths"),
    [
        ("table", "{'RMS': RMSNorm()}", {"warmup": 1}, TABLE),
        ("cnn", "{'group': GroupNorm(4)}", {}, CNN),
    ],
)
def test_a_classification(here, monkeypatch, name, norms, fields, paths):
    monkeypatch.setattr(run_command, "write_up", lambda *_, **__: None)
    dataset = carry_out(name, here, norms, **fields)
    assert (dataset.layer.values.tolist(), dataset.place.values.tolist()) == paths
    last = dataset.isel(step=-1)
    for variable in set(dataset.data_vars) - {"diverged_at"}:
        assert np.isfinite(last[variable]).all(), variable
    assert {"validation_accuracy", "validation_loss"} < set(dataset.data_vars)


def test_a_regression_and_what_its_report_says(here):
    dataset = carry_out("regression", here, "{'batch': Standard()}")
    assert "test_accuracy" not in dataset
    assert dataset.test_r2.attrs["long_name"] == "test explained variance"
    last = dataset.isel(step=-1)
    # R^2 by the split's own variance, from the squared error that is measured beside it.
    with np.load("regression.npz") as data:
        variance = data["y"].var()
    assert (last.test_r2 < 1).all()
    ratio = (1 - last.test_r2) / last.test_loss
    np.testing.assert_allclose(ratio, ratio.values.flat[0], rtol=1e-4)
    assert 0.5 / variance < ratio.values.flat[0] < 2 / variance
    page = (here / "regression" / "report.html").read_text(encoding="utf-8")
    shown = page.split("<body")[1].split("<script")[0]
    words = re.sub(r"<[^>]*>", "", shown)  # addresses and names of figures aside
    assert "accuracy" not in words.lower()
    assert "Test explained variance" in shown


class Net(nn.Module):
    norm: Norm

    @nn.compact
    def __call__(self, x):
        x = nn.Dense(9)(x.reshape(x.shape[0], -1))
        return nn.Dense(10)(nn.relu(self.norm("norm")(x)))


class ByHand(nn.Module):
    @nn.compact
    def __call__(self, x):
        x = nn.Dense(9)(x.reshape(x.shape[0], -1))
        return nn.Dense(10)(nn.relu(nn.LayerNorm(name="norm")(x)))


def test_layer_norm_in_a_study_is_a_loop_by_hand_to_the_bit(small, digits):
    study = small(network=Net, init_std=None)
    run = make_run(study, find_model(study, nn.LayerNorm(), digits.shape, digits.outputs))
    state = run.init(digits, jnp.uint32(7), jnp.float32(0.3), {})
    images, labels = jnp.asarray(digits.train_x), jnp.asarray(digits.train_y)
    params = ByHand().init(jax.random.fold_in(jax.random.key(7), 0), jnp.zeros((2, 64)))["params"]

    # As users compile: the tests' own options round some programs otherwise than others.
    compiled = partial(jax.jit, compiler_options={"xla_cpu_parallel_codegen_split_count": 32})

    @compiled
    def step(params, rows, rate):
        def loss(params):
            x = images[rows].astype(jnp.float32) * (1 / 16)
            scores = ByHand().apply({"params": params}, x)
            each = optax.softmax_cross_entropy_with_integer_labels(scores, labels[rows])
            return jnp.mean(each)

        optimizer = optax.sgd(rate)
        update, _ = optimizer.update(jax.grad(loss)(params), optimizer.init(params), params)
        return optax.apply_updates(params, update)

    study_step = compiled(run.step)
    for number in range(20):
        key = jax.random.fold_in(jax.random.fold_in(jax.random.key(7), 1), number)
        rows = jax.random.randint(key, (16,), 0, len(images))
        params = step(params, rows, jnp.float32(0.3))
        state, _ = study_step(digits, state)
    jax.tree.map(np.testing.assert_array_equal, state.params, dict(params))
    scores = ByHand().apply({"params": params}, jnp.float32(digits.test_x) * jnp.float32(1 / 16))
    right = np.argmax(scores, axis=1) == digits.test_y
    measured = jax.jit(run.evaluate)(digits, state)
    assert float(measured["test_accuracy"]) == np.float32(right.mean())
