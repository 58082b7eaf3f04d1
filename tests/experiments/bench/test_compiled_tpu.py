"""Batch norm as the compiler for TPUs leaves it, which takes no TPU.

Skipped where that compiler is not: `make .venv/.libtpu` puts it where only these tests find it.
"""

import importlib.util
import os
import re
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest

ROOT = Path(__file__).parents[3]
LIBTPU = Path(sys.prefix) / "libtpu"

pytestmark = pytest.mark.skipif(
    not LIBTPU.exists() and importlib.util.find_spec("libtpu") is None,
    reason="libtpu is not installed: make .venv/.libtpu",
)


@pytest.fixture(scope="module")
def compile_for_tpu(tmp_path_factory):
    """A function that gives the rows of `bench compiled`, from a process that the tests' settings
    do not reach."""

    def rows(*arguments):
        folder = tmp_path_factory.mktemp("compiled")
        command = ["-m", "experiments", "bench", "compiled", "--targets", "tpu", *arguments]
        env = os.environ | {"XLA_FLAGS": "", "PYTHONPATH": f"{ROOT}{os.pathsep}{LIBTPU}"}
        subprocess.run(
            [sys.executable, *command, "--out", str(folder)],
            cwd=ROOT,
            env=env,
            check=True,
            stdout=subprocess.DEVNULL,
        )
        return pd.read_csv(folder / "compiled.csv", keep_default_na=False)

    return rows


@pytest.fixture(scope="module")
def alone(compile_for_tpu):
    """One norm of bfloat16, in every placement."""
    data = compile_for_tpu("--programs", "norm", "--dtypes", "bfloat16", "--names", "jbn")
    assert len(data) == 3 * 2
    return data


def test_no_array_of_float32_is_written_for_bfloat16(alone):
    assert not alone[["float32_written", "float32_written_other"]].to_numpy().any()


def test_four_devices_exchange_two_vectors_at_most_by_all_reduce_forward(alone):
    forward = alone[(alone["placement"] != "one") & (alone["mode"] == "forward")]
    assert len(forward) == 2
    for written in forward["collectives"]:
        numbers, kinds = zip(*re.findall(r"(\d+) ([a-z-]+) \(", written))
        assert set(kinds) == {"all-reduce"}
        assert sum(map(int, numbers)) <= 2
        assert "MiB" not in written


def test_a_convolutional_network_moves_no_more_than_with_flax(compile_for_tpu):
    chosen = "--programs conv --layers 1 --placements one --dtypes bfloat16"
    data = compile_for_tpu(*chosen.split(), "--names", "jbn", "flax.linen")
    moved = data.pivot(index="mode", columns="name", values="moved")
    assert len(moved) == 2
    assert (moved["jbn"] <= 1.02 * moved["flax.linen"]).all(), moved
