"""The compiled benchmark on this machine's own devices, whose compiler is always here."""

import sys
from collections import Counter

import jax
import pandas as pd
import pytest

from experiments import bench
from experiments.__main__ import main
from experiments.bench import compiled, runner_programs, targets
from experiments.bench.programs import Cell, Scale
from experiments.bench.rivals import JaxRival
from jbn import RunningStats

SMALL = Scale(2**20, 2)


@pytest.fixture(autouse=True)
def users_rules():
    """Flax does not keep the strict rules of these tests."""
    with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
        yield


@pytest.fixture(autouse=True)
def devices_of_this_machine(monkeypatch):
    devices = lambda target, number: jax.devices()[:number]  # noqa: E731
    monkeypatch.setattr(compiled, "devices", devices)


def broken(x, affine, stats, *, epsilon, axis_name):
    raise RuntimeError("out of order\nmore")


def untouched(x, affine, stats, *, epsilon, axis_name):
    return x, RunningStats(*stats)


def measured(**selected):
    return compiled.measure(compiled.Selection(("tpu",), **selected), SMALL)


def test_every_program_compiles_in_every_placement():
    report = measured(programs=("norm", "dense"), dtypes=("float32",), names=("jbn",))
    data = report.data
    assert not [note for note in report.notes if "Failed" in note]
    assert list(report.tables) == ["TPU v5e: one norm", "TPU v5e: Dense, norm, ReLU, per layer"]
    assert len(data) == 2 * 3 * 2
    assert (data.groupby("program")["unit"].unique().map(list)).to_dict() == {
        "norm": [2**20],
        "dense": [2 * 2**20],
    }
    assert (data["moved"] > 2).all()
    alone = data[data["placement"] == "one"]
    assert (alone["collectives"] == "").all()
    assert data[data["placement"] != "one"]["collectives"].str.contains("all-reduce").all()
    shown = report.tables["TPU v5e: one norm"]
    assert shown["program"].iloc[0] == "one device, float32, forward"
    assert shown["collectives"].iloc[0] == "none"


def test_images_are_convolved_in_the_type_of_x():
    data = measured(programs=("conv",), placements=("one",), dtypes=("bfloat16",)).data
    assert set(data["name"]) == set(compiled.NAMES)
    assert (data["moved"] > 2).all()


def test_what_does_not_compile_is_named_and_the_rest_goes_on(monkeypatch):
    field = compiled.find_rivals()
    rivals = [JaxRival("jbn", broken), JaxRival("flax.linen", untouched)]
    monkeypatch.setattr(compiled, "find_rivals", lambda: field._replace(rivals=rivals))
    chosen = {"programs": ("norm",), "placements": ("one",), "modes": ("forward",)}
    report = measured(**chosen, dtypes=("float32",))
    assert report.data["name"].tolist() == ["flax.linen"]
    [failed] = [note for note in report.notes if note.startswith("Failed")]
    what = "TPU v5e: one norm: one device, float32, forward, jbn (RuntimeError: out of order)"
    assert failed == f"Failed: {what}"


def test_arguments_are_as_large_as_is_said_on_each_device():
    cell = Cell("conv", "axis_name", "bfloat16", "forward")
    _, (params, stats, x) = compiled.make(cell, JaxRival("none", untouched), "tpu", SMALL)
    assert len(params) == len(stats) == SMALL.layers
    shard = x.sharding.shard_shape(x.shape)
    assert shard == (SMALL.x_bytes // (32 * 32 * 128 * 2), 32, 32, 128)
    assert x.shape[0] == 4 * shard[0]


def test_collectives_are_written_by_kind_and_size():
    counted = Counter({("all-reduce", 8192): 19, ("all-reduce", 8196): 1, ("all-reduce", 512): 1})
    counted["all-gather", 40 * compiled.MIB] = 2
    written = "21 all-reduce (20 x 8 KiB, 512 B); 2 all-gather (2 x 40 MiB)"
    assert compiled._written(counted) == written
    assert compiled._written(Counter()) == ""


def test_the_other_way_is_shown_where_it_differs():
    numbers = {"moved": 3.0, "kernels": 5, "collectives": "1 all-reduce (8 KiB)"}
    labels = {"target": "tpu", "program": "norm", "placement": "one", "dtype": "float32",
              "mode": "forward", "name": "jbn"}  # fmt: skip

    def other_way(**other):
        others = {f"{name}_other": value for name, value in {**numbers, **other}.items()}
        row = labels | {"held": 0.0, "seconds": 1.0} | numbers | others
        return compiled.table([row])["the other way"].item()

    assert other_way() == ""
    assert other_way(moved=4.0, kernels=8) == "4.00 arrays; 8 kernels"
    assert other_way(collectives="") == "no collectives"


def test_the_runners_programs_are_those_of_make_compare():
    found = [
        (network, program.__name__, len(arguments))
        for network, program, arguments in runner_programs.make(jax.devices())
    ]
    programs = [("init", 5), ("advance", 2), ("evaluate", 2)]
    assert found == [(name, *p) for name in ("no norm", "batch norm") for p in programs]
    _, init, arguments = next(runner_programs.make(jax.devices()))
    counted = compiled.count(compiled.compile_program(init, arguments), compiled.MIB, 0)
    assert counted["kernels"] > 0
    assert counted["collectives"] == ""


def test_the_numbers_are_left_in_files(tmp_path, monkeypatch):
    monkeypatch.setattr(bench, "compile_for_absent_chips", lambda: None)
    chosen = "--targets h100 --programs norm --placements one --dtypes float32 --names jbn --mib 1"
    main(["bench", "compiled", *chosen.split(), "--modes", "all gradients", "--out", str(tmp_path)])
    data = pd.read_csv(tmp_path / "compiled.csv")
    assert data["mode"].tolist() == ["all gradients"]
    page = (tmp_path / "compiled.md").read_text()
    assert f"bench compiled {chosen} --modes 'all gradients' --out DIR" in page
    assert "## H100: one norm" in page


@pytest.mark.parametrize(
    ("target", "module"), [("tpu", "libtpu"), ("h100", "jax_plugins.xla_cuda12")]
)
def test_a_missing_compiler_is_one_clear_line(monkeypatch, capsys, target, module):
    monkeypatch.setattr(bench, "compile_for_absent_chips", lambda: None)
    monkeypatch.setattr(compiled, "devices", targets.devices)
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(SystemExit) as stopped:
        main(["bench", "compiled", "--targets", target])
    assert stopped.value.code == 2
    [line] = capsys.readouterr().err.splitlines()
    assert line.startswith(f"{targets.TITLES[target]}: compiling for it needs {module} (")
    assert "pip install -c constraints.txt -e '.[aot]'" in line
