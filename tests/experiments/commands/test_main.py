"""The command line: what it writes, and how it says no."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from experiments import __main__ as command_line
from experiments.__main__ import main
from experiments.commands.run import _failures
from experiments.runner.checkpoint import CheckpointError
from experiments.runner.folder import FolderError
from experiments.system.devices import use_all_cores
from experiments.system.files import SaveError
from experiments.system.lock import LockedError

CONFIG = """
from experiments.study import MLP, Standard, Study

study = Study(
    name="tiny", claim="it runs", data="digits", norms={"none": None, "bn": Standard()},
    network=MLP((5,), "relu"), optimizer="sgd", learning_rates=(0.1, 1.0), seeds=(0, 1),
    batch_size=8, steps=8, evaluate_every=4,
)
"""


@pytest.fixture
def config(tmp_path) -> Path:
    path = tmp_path / "study.py"
    path.write_text(CONFIG)
    return path


def refused(capsys, *arguments: object) -> str:
    """What is said on stderr when `arguments` are refused."""
    with pytest.raises(SystemExit) as stopped:
        main([str(argument) for argument in arguments])
    assert stopped.value.code == 2
    return capsys.readouterr().err.strip()


def test_run_writes_results_and_report_with_fields_overridden(config, tmp_path, capsys):
    out = tmp_path / "deep" / "out"
    network = ["--network", "MLP((4,), 'gelu')", "--optimizer", "momentum"]
    main(["run", str(config), "--out", str(out), *network, "--init-std", "0.2"])
    assert {path.name for path in out.iterdir()} >= {
        "config.json",
        "metrics.nc",
        "summary.json",
        "report.html",
        "figures",
    }
    fields = json.loads((out / "config.json").read_text())
    assert (fields["init_std"], fields["steps"]) == (0.2, 8)
    assert fields["network"] == 'MLP((4,), "gelu")'
    assert fields["optimizer"] == "SGD(momentum=0.9)"
    assert str(out / "report.html") in capsys.readouterr().out
    (out / "report.html").unlink()
    main(["report", str(out)])
    assert (out / "report.html").is_file()


def test_several_studies_of_one_file(config, tmp_path, capsys):
    several = "one = " + CONFIG.partition("study = ")[2] + "import dataclasses\n"
    several += "one = dataclasses.replace(one, norms={'none': None}, learning_rates=(0.1,))\n"
    several += "studies = {'low': one, 'high': dataclasses.replace(one, learning_rates=(1.0,))}\n"
    config.write_text(CONFIG.partition("study = ")[0] + several)
    out = tmp_path / "out"
    command = ["run", str(config), "--out", str(out), "--steps", "4"]
    main(command)
    for name, rate in {"low": 0.1, "high": 1.0}.items():
        fields = json.loads((out / name / "config.json").read_text())
        assert (fields["learning_rates"], fields["steps"]) == ([rate], 4)
        assert (out / name / "report.html").is_file()
    page = (out / "comparison.html").read_text(encoding="utf-8")
    assert "2 studies compared" in page
    capsys.readouterr()
    main(command)
    assert capsys.readouterr().out.count("finished before.") == 2


def test_help_of_run_explains_fields_and_shows_the_defaults_of_the_config(config, capsys):
    with pytest.raises(SystemExit) as stopped:
        main(["run", str(config), "--help"])
    assert stopped.value.code == 0
    shown = " ".join(capsys.readouterr().out.split())
    assert "digits|mnist|binary-mnist|" in shown
    assert "sgd|momentum|adam|adamw|" in shown
    assert "classification|regression|" in shown
    assert "(default: 'MLP((5,), \"relu\")')" in shown
    assert "(default: 0.1 1.0)" in shown


def test_help_tells_the_commands_apart(capsys):
    with pytest.raises(SystemExit):
        main(["--help"])
    lines = [line.strip("│ ") for line in capsys.readouterr().out.splitlines()]
    for command in ("run", "report", "list", "walkthrough", "papers", "bench"):
        assert any(line.startswith(f"- {command}") for line in lines)


@pytest.mark.parametrize("arguments", [["--help"], ["run", "--help"], ["walkthrough", "--help"]])
def test_help(arguments, capsys):
    with pytest.raises(SystemExit) as stopped:
        main(arguments)
    assert stopped.value.code == 0
    assert "usage: python -m experiments" in capsys.readouterr().out


def test_a_config_that_is_absent(tmp_path, capsys):
    message = refused(capsys, "run", tmp_path / "absent.py", "--out", tmp_path)
    assert message == f"{tmp_path}/absent.py: cannot be read: No such file or directory."


def test_a_misspelt_field_in_the_config(config, tmp_path, capsys):
    config.write_text(CONFIG.replace("batch_size", "batchsize"))
    message = refused(capsys, "run", config, "--out", tmp_path)
    assert message.endswith("unknown field 'batchsize'. Did you mean 'batch_size'?")
    assert "\n" not in message


def test_an_override_out_of_range(config, tmp_path, capsys):
    message = refused(capsys, "run", config, "--out", tmp_path, "--learning-rates", "-1")
    assert message == "learning_rates=(-1.0,): needs a tuple of distinct positive numbers."


def test_one_value_of_a_field_or_several(config, tmp_path, monkeypatch):
    class Seen(Exception):
        pass

    def show(study, *_, **__):
        raise Seen(study)

    monkeypatch.setattr("experiments.runner.run.run", show)
    values = ["--epsilon", "0.5", "--momentum", "0.9", "0.99"]
    with pytest.raises(Seen) as seen:
        main(["run", str(config), "--out", str(tmp_path / "out"), *values])
    (study,) = seen.value.args
    assert (study.epsilon, study.momentum) == (0.5, (0.9, 0.99))


@pytest.mark.parametrize(
    ("override", "says"),
    [
        (["--network", "MLP((64.5,), 'relu')"], "widths=(64.5,): needs a tuple of whole numbers"),
        (["--batch-sise", "8"], "--batch-size"),
        (["--data", "cifar"], "--data"),
        (["--schedule", "step"], "--schedule"),
        (["--learning-rates", "fast"], "--learning-rates"),
    ],
    ids=["wrong type", "misspelt", "no such word", "no such choice", "not a number"],
)
def test_an_override_that_cannot_be_read(config, tmp_path, capsys, override, says):
    assert says in refused(capsys, "run", config, "--out", tmp_path, *override)


def test_an_error_in_a_network_is_one_line_that_names_its_own(config, tmp_path, capsys):
    config.write_text(CONFIG.replace('MLP((5,), "relu")', "lambda norm: 1 / 0"))
    message = refused(capsys, "run", config, "--out", tmp_path / "out")
    assert message == f"norms['none']: ZeroDivisionError: division by zero ({config}:6)"


def test_data_that_cannot_be_used_is_one_line(config, tmp_path, capsys):
    data = f"Csv('{tmp_path}/absent.csv', 'y')"
    message = refused(capsys, "run", config, "--out", tmp_path / "out", "--data", data)
    assert message.startswith(f"{tmp_path}/absent.csv: cannot be read as CSV (No such file")


def test_a_run_without_out(config, capsys):
    assert "--out" in refused(capsys, "run", config)


def test_values_that_commas_separate(config, tmp_path, capsys):
    message = refused(capsys, "run", config, "--out", tmp_path, "--seeds", "0,1,2")
    assert message == "--seeds 0,1,2: values are told apart by spaces, --seeds 0 1 2"


def test_some_of_the_norms(config, tmp_path, monkeypatch, capsys):
    seen = []
    monkeypatch.setattr("experiments.runner.run.run", lambda study, *_, **__: seen.append(study))
    monkeypatch.setattr("experiments.commands.run.write_up", lambda *_: None)
    main(["run", str(config), "--out", str(tmp_path / "out"), "--only", "bn"])
    assert [*seen[0].norms] == ["bn"]
    message = refused(capsys, "run", config, "--out", tmp_path, "--only", "bn", "standard")
    assert message == "--only standard: the norms are none, bn."


def test_a_plan_without_an_interval(config, tmp_path, capsys):
    message = refused(capsys, "run", config, "--out", tmp_path, "--confirm", "1")
    assert message == "--confirm 1: needs 2 seeds or more, to have an interval."
    assert not (tmp_path / "config.json").exists()


def test_a_python_without_the_packages_is_a_line():
    done = subprocess.run(
        [sys.executable, "-S", "-m", "experiments", "walkthrough"],
        cwd=Path(command_line.__file__).parents[1],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 2
    assert "lacks tyro, rich, jax" in done.stderr
    assert ".venv/bin/python -m experiments" in done.stderr
    assert done.stderr.count("\n") == 1


def test_an_unknown_command(capsys):
    assert "walkthrough" in refused(capsys, "walk")


def test_missing_data(config, tmp_path, capsys):
    out, empty = tmp_path / "out", tmp_path / "empty"
    message = refused(capsys, "run", config, "--out", out, "--data", "mnist", "--data-dir", empty)
    assert message.startswith(f"{empty}: has neither train-images-idx3-ubyte nor")
    assert not out.exists()


def test_an_output_folder_that_is_a_file(config, tmp_path, capsys):
    message = refused(capsys, "run", config, "--out", config)
    assert str(config) in message
    assert "\n" not in message


def test_a_report_of_nothing(tmp_path, capsys):
    message = refused(capsys, "report", tmp_path)
    assert "metrics.nc" in message
    assert "\n" not in message


def test_a_walkthrough_of_an_absent_table(tmp_path, capsys):
    message = refused(capsys, "walkthrough", "--csv", tmp_path / "absent.csv")
    assert str(tmp_path / "absent.csv") in message


def test_an_error_of_ours_keeps_its_traceback(config, tmp_path, monkeypatch):
    def broken(*_, **__):
        raise ValueError("a bug")

    monkeypatch.setattr("experiments.runner.run.run", broken)
    with pytest.raises(ValueError, match="a bug"):
        main(["run", str(config), "--out", str(tmp_path)])


def test_every_core_becomes_a_device(monkeypatch):
    monkeypatch.setenv("XLA_FLAGS", "--xla_dump_to=there")
    use_all_cores()
    flags = os.environ["XLA_FLAGS"].split()
    assert flags[0] == "--xla_dump_to=there"
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    assert f"--xla_force_host_platform_device_count={cores}" in flags


def test_a_number_of_devices_that_was_asked_for_stays(monkeypatch):
    monkeypatch.setenv("XLA_FLAGS", "--xla_force_host_platform_device_count=3")
    use_all_cores()
    assert os.environ["XLA_FLAGS"] == "--xla_force_host_platform_device_count=3"


def test_devices_are_settled_before_jax_is_imported():
    script = (
        "import sys, experiments.__main__; assert 'jax' not in sys.modules; "
        "experiments.__main__.use_all_cores(); import jax; print(jax.device_count())"
    )
    environment = {key: value for key, value in os.environ.items() if key != "XLA_FLAGS"}
    done = subprocess.run(
        [sys.executable, "-c", script],
        env=environment | {"JAX_PLATFORMS": "cpu"},
        cwd=Path(command_line.__file__).parents[1],
        capture_output=True,
        text=True,
        check=True,
    )
    assert int(done.stdout) == (
        len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    )


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (OSError(28, "No space left on device"), 1),
        (SaveError(28, "No space left on device", "out/metrics.nc"), 1),
        (CheckpointError("of another program"), 1),
        (FolderError("is another study's"), 2),
        (LockedError("is held"), 2),
    ],
)
def test_only_what_comes_before_training_is_status_2(capsys, error, status):
    with pytest.raises(SystemExit) as stopped, _failures():
        raise error
    assert stopped.value.code == status
    assert capsys.readouterr().err == f"{error}\n"
