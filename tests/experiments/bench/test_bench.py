"""The benchmarks: their arithmetic, who takes part, and what they leave; never how fast it was."""

import os
import platform
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd
import pytest
from jax.sharding import AxisType

from experiments import bench
from experiments.__main__ import main
from experiments.bench import accuracy, measure, memory, op, output, rivals, train
from experiments.bench.reference import errors, make_problem, solve
from experiments.system import devices
from jbn import RunningStats


@pytest.fixture(autouse=True)
def users_rules():
    """Other libraries do not keep the strict rules of these tests."""
    with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
        yield


@pytest.fixture
def only(monkeypatch):
    """A function that makes these the only rivals."""

    def take(*names, **applies):
        kept = [rival for rival in rivals.find_rivals().rivals if rival.name in names]
        kept += [rivals.JaxRival(name, apply) for name, apply in applies.items()]
        field = rivals.Field(kept, {"Nowhere": "No module named 'nowhere'"})
        for module in (op, accuracy, memory):
            monkeypatch.setattr(module, "find_rivals", lambda: field)

    return take


def problem(shape=(64, 5), dtype=jnp.float32):
    rng = np.random.default_rng(1)
    return make_problem((2 * rng.standard_normal(shape) + 1).astype(dtype), rng)


def too_high(x, affine, stats, *, epsilon):
    return x * 0 + affine.bias + 1.0, RunningStats(*stats)


def broken(x, affine, stats, *, epsilon):
    raise RuntimeError("out of order\nmore")


# Measuring


def timings(**seconds):
    rows = [
        (name, number, "wall", value)
        for name, values in seconds.items()
        for number, value in enumerate(values)
    ]
    return pd.DataFrame(rows, columns=["name", "round", "clock", "seconds"])


def test_ratios_are_taken_round_by_round():
    compared = measure.compare(timings(a=[1.0, 20.0, 4.0], b=[0.5, 10.0, 1.0]), "a")
    row = compared.set_index("name").loc["b"]
    assert row["seconds"] == 1.0
    assert (row["ratio"], row["ratio_q25"], row["ratio_q75"]) == (2.0, 2.0, 3.0)
    assert compared["name"].tolist() == ["a", "b"]


def test_without_the_baseline_there_are_times_and_no_ratios():
    row = measure.compare(timings(b=[1.0, 3.0]), "a").iloc[0]
    assert row["seconds"] == 2.0
    assert np.isnan(row["ratio"])


def test_every_round_has_everyone_once_in_an_order_of_its_own(monkeypatch):
    monkeypatch.setattr(measure, "SPIN_SECONDS", 0)
    order = []
    clocks = {name: lambda name=name: order.append(name) or {"wall": 1.0} for name in "abcde"}
    frame = measure.measure_rounds(clocks, rounds=6, seed=0)
    rounds = [order[i : i + 5] for i in range(0, 30, 5)]
    assert all(sorted(names) == list("abcde") for names in rounds)
    assert len(set(map(tuple, rounds))) > 3
    assert frame["name"].unique().tolist() == list("abcde")
    assert len(frame) == 30


def test_a_clock_takes_the_inputs_in_turn_and_reports_one_call(monkeypatch):
    seen = []
    monkeypatch.setattr(measure, "_repeats", lambda *_: 4)
    ticks = iter([10.0, 18.0])
    monkeypatch.setattr(measure.time, "perf_counter", lambda: next(ticks))
    times = measure.host_clock(seen.append, ["x", "y", "z"])()
    assert seen == ["x", "y", "z", "x"]
    assert times["wall"] == 2.0
    assert set(times) == {"wall", "CPU"}


def test_the_loop_on_the_device_does_every_call():
    calls = []

    def function(x):
        jax.debug.callback(lambda: calls.append(1))
        return {"y": x + 1}

    seconds = measure.loop_on_device(function, [(jnp.ones(3),), (jnp.zeros(3),)], times=3)
    seconds()
    seconds()
    jax.effects_barrier()
    assert len(calls) == 2 * 2 * 3


# The reference


def test_the_reference_by_hand():
    x = np.array([[1.0], [5.0], [9.0]], np.float32)
    given = make_problem(x, np.random.default_rng(0))
    values = solve(given).values
    deviation = np.sqrt(32 / 3 + 1e-5)
    expected = np.array([-4, 0, 4]) / deviation * given.scale[0] + given.bias[0]
    np.testing.assert_allclose(values["y"][:, 0].astype(float), expected, rtol=1e-7)
    assert float(values["mean"][0]) == 5.0
    assert float(values["var"][0]) == pytest.approx(32 / 3, rel=1e-15)


@pytest.mark.parametrize("name", ["x", "scale", "bias"])
def test_gradients_of_the_reference_are_slopes(name):
    given = problem()._replace(**{k: v.astype(float) for k, v in problem()._asdict().items()
                                  if k in ("x", "scale", "bias")})  # fmt: skip
    direction = np.random.default_rng(2).standard_normal(getattr(given, name).shape)

    def loss(step):
        moved = given._replace(**{name: getattr(given, name) + step * direction})
        return np.sum(moved.cotangent * solve(moved).values["y"])

    slope = (loss(1e-5) - loss(-1e-5)) / 2e-5
    gradient = solve(given).values[f"d{name}"]
    assert float(np.sum(gradient * direction)) == pytest.approx(float(slope), rel=1e-6)


def test_errors_are_in_units_and_the_largest_counts():
    answer = solve(problem())
    y = answer.values["y"].copy()
    y[3, 2] += 0.5 * answer.units["y"][2]
    y[4, 1] -= 0.1 * answer.units["y"][1]
    found = errors(answer, {"y": y, "mean": answer.values["mean"]})
    assert found == {"y": pytest.approx(0.5), "mean": 0.0}
    y[0, 0] = np.inf
    assert np.isnan(errors(answer, {"y": y})["y"])


# Who takes part


@pytest.mark.parametrize(("shape", "dtype"), [((4, 4, 4, 5), "float32"), ((64, 5), "bfloat16")])
def test_every_rival_is_called_as_it_should_be(shape, dtype):
    given = problem(shape, jnp.dtype(dtype))
    answer = solve(given)
    for rival in rivals.find_rivals().rivals:
        inputs = rival.put(given)
        outputs = rival.numbers(rival.call("all gradients", inputs))
        assert outputs.keys() == answer.values.keys()
        for name, error in errors(answer, outputs).items():
            assert error < op.TOLERANCE[dtype], (rival.name, name)
        assert rival.call("forward", inputs).keys() == {"y", "mean", "var"}


def test_who_is_absent_is_named_with_the_reason(monkeypatch):
    monkeypatch.setitem(sys.modules, "haiku", None)
    field = rivals.find_rivals()
    assert "Haiku" not in [rival.name for rival in field.rivals]
    assert "haiku" in field.absent["Haiku"]
    [line] = [line for line in output.absences(field.absent) if "Haiku" in line]
    assert line.startswith("Skipped: Haiku (")


# The subcommands


def test_op_marks_the_wrong_and_goes_on_without_the_broken(only):
    only("jbn", "flax.linen", wrong=too_high, broken=broken)
    report = op.measure([(8, 4)], ["float32"], rounds=2, seed=0)
    right = report.data.groupby("name")["right"].all().to_dict()
    assert right == {"jbn": True, "flax.linen": True, "wrong": False, op.COPY: True}
    assert len(report.data) == 4 * 2 * 2  # names, clocks, modes
    assert (report.data.query("name == 'flax.linen'")["ratio"] == 1).all()
    shown = report.tables["forward, float32"].set_index("")
    assert shown.loc["wrong", "right"].startswith("NO, off by")
    assert shown.loc["jbn", "right"] == "yes"
    assert "Skipped: Nowhere (No module named 'nowhere')." in report.notes
    failed = "Failed: broken, 8x4 float32, forward (RuntimeError: out of order)"
    assert failed in report.notes


def test_bandwidth_is_that_of_the_fewest_passes():
    frame = timings(**{rivals.BASELINE: [8.0, 8.0], op.COPY: [1.0, 1.0]})
    of_copy = op._compared(frame, "all gradients").set_index("name")["of_copy"]
    assert of_copy[rivals.BASELINE] == 0.5  # four copies' time of eight
    assert np.isnan(of_copy[op.COPY])


def test_accuracy_of_a_hand_case(only, monkeypatch):
    only("flax.linen", wrong=too_high)
    x = problem().x
    monkeypatch.setattr(accuracy, "families", lambda *_: [accuracy.Family("easy", x)])
    report = accuracy.measure(rows=64, seed=3)
    rng = np.random.default_rng(3)
    answer = solve(make_problem(x, rng))
    expected = errors(answer, {"y": np.zeros_like(x) + make_problem(x, np.random.default_rng(3))
                               .bias + 1})["y"]  # fmt: skip
    data = report.data.query("family == 'easy'")
    error = data.set_index(["name", "quantity"])["error"]
    assert error["wrong", "y"] == pytest.approx(expected, rel=1e-6)
    assert error["flax.linen", "y"] < 1e-6
    shown = report.tables["Largest error"].query("family == 'easy'").set_index("quantity")
    assert shown.loc["y", "wrong"] == f"{expected:.0e} ✗"
    assert "✗" not in shown.loc["y", "flax.linen"]


def test_nothing_is_judged_that_float32_cannot_hold():
    def judged(std):
        x = std * np.random.default_rng(0).standard_normal((32, 2))
        answer = solve(make_problem(x.astype(np.float32), np.random.default_rng(0)))
        return [name for name in accuracy.QUANTITIES if accuracy._representable(answer, name)]

    assert judged(1.0) == ["y", "var", "dx"]
    assert judged(1e20) == ["y", "dx"]
    assert judged(6e37) == ["y"]


def test_jbn_is_right_on_every_family(only, monkeypatch):
    only("jbn")
    every = accuracy.families
    small = lambda *given: [family for family in every(*given) if len(family.x) < 1000]  # noqa: E731
    monkeypatch.setattr(accuracy, "families", small)
    data = accuracy.measure(rows=64, seed=0).data
    wrong = data[~(data["error"] <= data["tolerance"])]
    assert wrong.empty, wrong
    assert data["family"].nunique() > 20


def test_memory_counts_arrays_per_layer(only):
    only("jbn", "flax.linen")
    one = jax.make_mesh((1,), ("one",), axis_types=(AxisType.Auto,))  # as on one device
    with jax.set_mesh(one):
        report = memory.measure(width=64, batch=8192, layers=3)
    held = report.data.set_index(["name", "dense_bias"])["arrays_per_layer"]
    assert held["no batch norm", False] == pytest.approx(2, abs=0.4)
    assert held["jbn", False] < held["flax.linen", False] - 0.5
    table = report.tables["Arrays held between the passes, per layer"].set_index("")
    assert float(table.loc["jbn", "Dense without bias"]) == round(held["jbn", False], 2)


WORK = train.Work(
    steps=100,
    runs=2,
    batch_size=8,
    widths=(4,),
    examples=64,
    test_examples=32,
    evaluate_every=50,
)


def test_the_limit_multiplies_what_a_step_does(monkeypatch):
    shapes = []
    multiply = np.matmul
    monkeypatch.setattr(
        np, "matmul", lambda a, b, out: shapes.append((*a.shape, b.shape[1])) or multiply(a, b, out)
    )
    work = WORK._replace(steps=1, runs=1)
    train.products(work)()
    batch, first = work.batch_size, work.widths[0]
    assert shapes[:2] == [(batch, 784, first), (784, batch, first)]
    assert len(shapes) == 3 * (len(work.widths) + 1) - 1


@pytest.mark.parametrize("name", [train.RUNNER, train.FLAX])
def test_contenders_train(name):
    step = train.CONTENDERS[name][0](WORK)
    assert 0 < step() < 10


def test_pytorch_trains():
    torch = pytest.importorskip("torch")
    threads = torch.get_num_threads()
    assert 0 < train.torch_loop_on_one_thread(WORK)() < 10
    torch.set_num_threads(threads)


def test_train_reports_seconds_per_step_and_run(monkeypatch):
    monkeypatch.setattr(train, "CONTENDERS", {train.FLAX: (train.flax_loop, False)})
    report = train.measure(steps=100, runs=2, rounds=2, work=WORK)
    [table] = report.tables.values()
    assert table[""].tolist() == [train.FLAX]
    assert report.data["network"].unique().tolist() == ["784-4-10, sigmoid, batch norm, batch 8"]
    wall = report.data.query("clock == 'wall'")["seconds"].item()
    assert table["steps x runs per second"].item() == f"{1 / wall:.0f}"

    class Done:
        def submit(self, *_):
            return self

        def result(self):
            return {"wall": 600.0}

    assert train._Clock(Done(), train.runner, WORK, 2)() == {"wall": 3.0}


# What is left, and the command line


def test_csv_and_markdown_read_back(tmp_path, capsys):
    data = pd.DataFrame({"name": ["a", "b"], "seconds": [0.1234567891, 2.0]})
    table = pd.DataFrame({"": ["a", "b"], "ms": ["123", "2000"]})
    report = output.Report("op", "Title", data, {"Heading": table}, ["A note."])
    output.publish(report, tmp_path, command="python -m experiments bench op --out DIR")
    pd.testing.assert_frame_equal(pd.read_csv(tmp_path / "op.csv"), data)
    page = (tmp_path / "op.md").read_text()
    rows = [line.strip("| ").split(" | ") for line in page.splitlines() if line.startswith("|")]
    assert [row for row in rows if row[0] in "ab"] == [["a", "123"], ["b", "2000"]]
    for said in (
        "# Title",
        "## Heading",
        "- A note.",
        "bench op --out DIR",
        f"jax {jax.__version__}",
    ):
        assert said in page
    assert str(tmp_path) not in page
    assert platform.node() not in page
    assert "123" in capsys.readouterr().out


def test_the_command_hides_the_folder():
    assert bench._command("bench", ["op", "--out", "/home/me"]) == "bench op --out DIR"
    assert bench._command("bench", ["op", "--out=/home/me"]) == "bench op --out=DIR"


def test_the_command_line_writes_files(only, tmp_path):
    only("jbn", "flax.linen")
    arguments = ["--width", "8", "--batch", "64", "--layers", "2", "--out", str(tmp_path / "new")]
    main(["bench", "memory", *arguments])
    assert sorted(path.name for path in (tmp_path / "new").iterdir()) == ["memory.csv", "memory.md"]


@pytest.mark.parametrize(
    "arguments",
    [
        ["op", "--shapes", "8xx4"],
        ["op", "--shapes", "8"],
        ["op", "--rounds", "0"],
        ["op", "--dtypes", "float8"],
        ["speed"],
    ],
)
def test_arguments_that_cannot_be_read(arguments):
    with pytest.raises(SystemExit) as stopped:
        main(["bench", *arguments])
    assert stopped.value.code == 2


def test_a_folder_that_is_a_file(tmp_path, capsys):
    path = tmp_path / "file"
    path.touch()
    with pytest.raises(SystemExit) as stopped:
        main(["bench", "memory", "--out", str(path)])
    assert stopped.value.code == 2
    assert str(path) in capsys.readouterr().err


def test_the_program_is_started_anew_once(monkeypatch):
    started = []
    monkeypatch.setattr(devices.platform, "libc_ver", lambda: ("glibc", "2.36"))
    monkeypatch.setattr(devices.os, "execv", lambda *command: started.append(command))
    monkeypatch.setattr(devices.os, "environ", {"MALLOC_ARENA_MAX": "3"})
    monkeypatch.setattr(devices.sys, "orig_argv", ["python", "-m", "experiments", "bench"])
    devices.keep_freed_memory(one_arena=True)
    devices.keep_freed_memory(one_arena=True)
    assert started == [(sys.executable, [sys.executable, "-m", "experiments", "bench"])]
    assert os.environ == devices.MALLOC | {"MALLOC_ARENA_MAX": "3"}


def test_small_arrays_on_several_devices_have_an_arena_each(monkeypatch):
    monkeypatch.setattr(devices.platform, "libc_ver", lambda: ("glibc", "2.36"))
    monkeypatch.setattr(devices.os, "execv", lambda *_: None)
    monkeypatch.setattr(devices.os, "environ", {})
    devices.keep_freed_memory(one_arena=False)
    assert os.environ == devices.MALLOC | {"GLIBC_TUNABLES": "glibc.malloc.hugetlb=1"}
    os.environ.clear()
    devices.keep_freed_memory(one_arena=True)
    assert os.environ == devices.MALLOC | {"MALLOC_ARENA_MAX": "1"}
