"""The examples run as a reader runs them, and reach what they are about."""

import os
import re
import runpy
import subprocess
import sys
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
import pytest

from experiments.report.summary import summarize
from experiments.report.write import load_study

EXAMPLES = Path(__file__).parent.parent / "examples"


class Done(NamedTuple):
    defined: dict[str, Any]
    returned: Any
    printed: str


@pytest.fixture
def run(capsys):
    """Runs an example with JAX's own settings; warnings are errors, as in all tests."""

    def run(name: str, **settings: Any) -> Done:
        with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
            defined = runpy.run_path(str(EXAMPLES / f"{name}.py"))
            defined["main"].__globals__.update(settings)
            return Done(defined, defined["main"](), capsys.readouterr().out)

    return run


def accuracies(printed: str) -> list[float]:
    return [float(number) for number in re.findall(r"test accuracy ([\d.]+)", printed)]


@pytest.mark.parametrize("name", ["functional", "nnx_optimizer", "l1_batch_norm"])
def test_it_learns(run, name):
    (accuracy,) = accuracies(run(name).printed)
    assert accuracy > 0.9


def test_a_saved_state_resumes_to_the_same_last_bit(run):
    printed = run("linen_orbax").printed
    (accuracy,) = accuracies(printed)
    assert accuracy > 0.9
    assert "resumed to the same state True" in printed


def test_a_batch_is_spread_over_all_devices(run):
    printed = run("data_parallel").printed
    assert printed.count(f" on {jax.device_count()} devices") == 2
    parts, whole = accuracies(printed)
    assert min(parts, whole) > 0.88
    assert abs(parts - whole) < 0.02


def test_explicit_axes_need_nothing_of_the_model(run):
    printed = run("explicit_mesh").printed
    assert f"Explicit,) axes over {jax.device_count()} devices" in printed
    (accuracy,) = accuracies(printed)
    assert accuracy > 0.88


def test_averaged_weights_need_statistics_of_their_own(run):
    printed = run("average_weights", SEEDS=4, EPOCHS=10).printed
    lines = re.findall(r"(\w+) +(\w+) +([\d.]+) \+-", printed)
    loss = {(average, statistics): float(number) for average, statistics, number in lines}
    assert loss["SWA", "recalibrated"] < loss["last", "recalibrated"]
    # Those of the last step lose at least half of what averaging gains.
    gained = loss["last", "copied"] - loss["SWA", "recalibrated"]
    assert loss["SWA", "copied"] > loss["SWA", "recalibrated"] + gained / 2
    assert loss["SWA", "averaged"] < loss["SWA", "copied"]
    # Without an average all is one: the statistics of the last step are its own.
    assert loss["last", "copied"] == loss["last", "averaged"]


def test_training_with_rounded_kernels_is_better_than_rounding_afterwards(run):
    afterwards, in_training = accuracies(run("quantisation_aware").printed)
    assert in_training > max(0.8, afterwards + 0.1)


def test_a_loop_of_ones_own_has_a_report(run, tmp_path):
    run("own_loop", OUT=tmp_path / "mine", STEPS=(0, 2, 40), SEEDS=(0,))
    summary = summarize(load_study(tmp_path / "mine"))
    assert [*summary["norms"]] == ["none", "batch"]
    assert summary["norms"]["batch"]["final_accuracy"]["mean"] > 0.6
    assert summary["test_examples"] == 397


def test_one_device_is_enough():
    flags = f"{os.environ['XLA_FLAGS']} --xla_force_host_platform_device_count=1"
    settings = os.environ | {"XLA_FLAGS": flags}
    script = [sys.executable, "-W", "error", str(EXAMPLES / "data_parallel.py")]
    done = subprocess.run(script, env=settings, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count(" on 1 devices") == 2
    parts, whole = accuracies(done.stdout)
    assert min(parts, whole) > 0.88
    assert abs(parts - whole) < 0.02


def test_fine_tuning_leaves_the_frozen_norm_as_it_was_loaded(run):
    _, (before, after), printed = run("from_pytorch")
    (accuracy,) = accuracies(printed)
    assert accuracy > 0.87
    for layer, vectors in before.items():
        for name, vector in vectors.items():
            frozen = layer == "layers_1"
            assert np.array_equal(vector, after[layer][name]) == frozen, (layer, name)


def test_the_loaded_model_is_pytorchs(run):
    torch = pytest.importorskip("torch", reason="torch is not installed")
    example = run("from_pytorch").defined
    layers = torch.nn.Linear(64, 128), torch.nn.BatchNorm1d(128), torch.nn.ReLU()
    net = torch.nn.Sequential(*layers, torch.nn.Linear(128, 10)).eval()
    net.load_state_dict({k: torch.from_numpy(v) for k, v in example["load_state_dict"]().items()})
    params, batch_stats = example["from_state_dict"](
        {k: v.numpy() for k, v in net.state_dict().items()}
    )
    x = np.array(example["IMAGES"][:50])
    y = example["NETWORK"].apply({"params": params, "batch_stats": batch_stats}, x)
    expected = net(torch.from_numpy(x)).detach().numpy()
    np.testing.assert_allclose(y, expected, rtol=1e-5, atol=1e-5 * np.abs(expected).max())


@pytest.mark.parametrize("path", sorted(EXAMPLES.glob("*.py")), ids=lambda path: path.stem)
def test_an_example_is_short_and_runs_here(path):
    lines = path.read_text().splitlines()
    assert len(lines) < 60
    assert re.fullmatch(r'"""[A-Z].*\."""', lines[0])
    assert lines[-2:] == ['if __name__ == "__main__":', "    main()"]
    assert f'"{path.stem}"' in Path(__file__).read_text()
