"""Benchmarks of whole steps: what they run and what they leave; never how fast it was."""

import subprocess
from functools import partial
from types import SimpleNamespace
from unittest import mock

import jax
import numpy as np
import pytest

from experiments.__main__ import main
from experiments.bench import accuracy, compile, gpu, layers, op, train


@pytest.fixture(autouse=True)
def users_rules():
    """Flax does not keep the strict rules of these tests."""
    with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
        yield


def loops(name, loop):
    arguments = layers._arguments("float32", 4, 8, 1, np.random.default_rng(0))
    params, (stats,), x = arguments
    norm = partial(layers._jbn, layers._Traced(name), epsilon=1e-5)
    with mock.patch("jax.lax.while_loop", loop):
        program = jax.jit(norm).lower(x, params[0][1], stats)
    return program.as_text().count("stablehlo.while"), program.compile()(x, params[0][1], stats)


def test_cases_of_layers_differ_in_their_loop_alone():
    looped, expected = loops("as it is", jax.lax.while_loop)
    once, one_sweep = loops("once", layers._once)
    twice, two_sweeps = loops("twice", layers._twice)
    assert (looped, once, twice) == (1, 0, 0)
    for found in (one_sweep, two_sweeps):
        jax.tree.map(partial(np.testing.assert_allclose, rtol=1e-5, atol=1e-5), found, expected)


def test_layers_are_timed_at_every_type():
    report = layers.measure(("bfloat16",), width=4, batch=8, layers=1, rounds=1, seed=0)
    (table,) = report.tables.values()
    assert len(table) == 4
    assert list(table["type"].unique()) == ["bfloat16"]
    assert report.data.query("name == @layers.BASELINE")["ratio"].eq(1).all()


@pytest.mark.parametrize("name", [*compile.NORMS, compile.NO_NORM])
def test_the_step_that_is_compiled_trains_a_resnet(name):
    step, arguments = compile._step(name)
    params, new, _ = jax.eval_shape(step, *arguments)
    assert jax.tree.structure(params) == jax.tree.structure(arguments[0])
    assert len(jax.tree.leaves(new)) == (0 if name == compile.NO_NORM else 2 * 20)


def test_compilation_is_compared_part_by_part(monkeypatch):
    seconds = {"jbn.linen": 3.0, compile.BASELINE: 2.0, compile.NO_NORM: 1.0}
    monkeypatch.setattr(
        compile, "_in_new_process", lambda name: {"lowering": 1.0, "compiling": seconds[name]}
    )
    report = compile.measure(rounds=2, seed=0)
    table = report.tables["CPU time"].set_index("")
    assert table.loc["jbn.linen", "compiling, s"] == "3.00"
    assert table.loc["jbn.linen", "compiling, times as dear"] == "1.50 (1.50–1.50)"
    assert table.loc["jbn.linen", "lowering, times as dear"] == "1.00 (1.00–1.00)"
    sizes = report.tables["One norm"].set_index("")
    assert list(sizes.index) == list(compile.NORMS)
    assert sizes["kernels"].between(5, 60).all()
    assert (sizes["kernels"] < sizes["operations, lowered"]).all()
    assert (sizes["operations, lowered"] < sizes["instructions, compiled"]).all()
    assert report.data.query("name == 'jbn.linen'")["kernels"].eq(sizes["kernels"].iloc[0]).all()


@pytest.mark.parametrize("name", [train.RUNNER, train.FLAX])
def test_contenders_train_a_cnn(name):
    work = train.cnn(4, 1)._replace(batch_size=4, examples=64, test_examples=8, evaluate_every=4)
    assert 0 < train.CONTENDERS[name][0](work)() < 10


@pytest.mark.parametrize("part", [*gpu.PARTS, *gpu.REHEARSAL])
def test_every_part_of_the_gpu_command_is_a_benchmark(part, monkeypatch, tmp_path):
    asked = []

    def note(*args, **options):
        asked.append(options)
        raise OSError("measured")

    for module in (op, layers, train, accuracy):
        monkeypatch.setattr(module, "measure", note)
    with pytest.raises(SystemExit):
        main(["bench", *part.split(), "--out", str(tmp_path)])
    assert len(asked) == 1


def test_a_part_that_fails_costs_no_other(monkeypatch, tmp_path, capsys):
    started = []

    def run(command, check):
        started.append(command[4])
        return SimpleNamespace(returncode=int(command[4] == "layers"))

    monkeypatch.setattr(subprocess, "run", run)
    with pytest.raises(SystemExit, match=r"^Failed: layers --rounds 5\.$"):
        main(["bench", "gpu", "--out", str(tmp_path)])
    assert started == ["op", "layers", "train", "accuracy"]
    capsys.readouterr()
