"""Output and files of `list`, `--dry-run` and `--quiet`."""

import io
import json
import os
from pathlib import Path

import jax
import numpy as np
import pytest
from rich.console import Console

from experiments.__main__ import main
from experiments.runner import checkpoint, plan, results
from experiments.runner.checkpoint import Checkpoint, Saver
from experiments.runner.measured import Mark
from experiments.study.config import as_json, networks_of
from experiments.study.model import find_model
from experiments.study.sweep import make_mesh, make_sweep, place
from experiments.study.trace import trace
from experiments.study.windows import plain_steps
from experiments.system import checksums, devices, lock
from experiments.system.devices import DeviceError, find_devices, keep_compiled


def listed(folder, capsys, monkeypatch) -> list[str]:
    monkeypatch.setenv("COLUMNS", "1000")
    main(["list", str(folder)])
    shown = capsys.readouterr().out
    assert "\x1b" not in shown
    return [" ".join(line.split()) for line in shown.splitlines() if "│" in line]


def known(study) -> dict:
    return {"networks": [*networks_of(study)]}


def begun(study, folder) -> None:
    """A study in `folder` that was left at step 20, one run diverged."""
    folder.mkdir()
    results.save_config(as_json(study), known(study), folder)
    Saver(folder).save(Checkpoint(20, {}, Mark(), 1, "{}", {}))


def test_list_tells_how_far_each_study_is(small, tmp_path, capsys, monkeypatch):
    begun(small(), tmp_path / "left")
    begun(small(), tmp_path / "running")
    begun(small(), tmp_path / "done")
    results.save(results.blank(trace(small())), tmp_path / "done")
    (tmp_path / "new").mkdir()
    results.save_config(as_json(small()), known(small()), tmp_path / "new")
    (tmp_path / "odd").mkdir()
    (tmp_path / "odd" / "config.json").write_text("{")
    with lock.hold(tmp_path / "running"):
        rows = listed(tmp_path, capsys, monkeypatch)
    assert rows[:4] == [
        f"│ {tmp_path}/done │ finished │ 0 of 12 │",
        f"│ {tmp_path}/left │ unfinished at step 20 of 80 │ 1 of 12 │",
        f"│ {tmp_path}/new │ unfinished at step 0 of 80 │ 0 of 12 │",
        rows[3],
    ]
    assert rows[3].startswith(f"│ {tmp_path}/odd │ cannot be read: ")
    assert f"running, at step 20 of 80 (process {os.getpid()} on " in rows[4]


def test_list_only_looks(small, tmp_path, capsys, monkeypatch):
    begun(small(), tmp_path / "left")
    newest = checkpoint.paths(tmp_path / "left")[0]
    newest.write_bytes(b"")
    assert "unfinished at step 0 of 80" in listed(tmp_path, capsys, monkeypatch)[0]
    assert newest.exists()


def test_list_counts_the_runs_of_every_value(small, tmp_path, capsys, monkeypatch):
    study = small(epsilon=(1e-5, 0.1))
    results.save_config(as_json(study), known(study), tmp_path)
    assert "0 of 18" in listed(tmp_path, capsys, monkeypatch)[0]


def test_list_of_no_studies(tmp_path, capsys):
    main(["list", str(tmp_path)])
    assert "no studies there" in capsys.readouterr().out
    with pytest.raises(SystemExit) as stopped:
        main(["list", str(tmp_path / "absent")])
    assert stopped.value.code == 2


def test_a_plan_counts_what_a_study_does_and_adds_up_its_time(small, monkeypatch):
    monkeypatch.setattr(plan, "measure", lambda *_: plan.Cost(10.0, 50.0, 3 * 2**20))
    said = io.StringIO()
    plan.print_plan(small(), None, Console(file=said, width=200))
    rows = [" ".join(line.split()) for line in said.getvalue().splitlines()]
    # 10 s to compile and two windows of 50 s.
    assert "│ batch norm │ 6 │ 40 │ 10.0 s │ 3 MiB │ 0:01:50 │" in rows
    assert rows[-1].startswith("2 programs, one after the other")
    assert "12 runs of 40 steps on" in rows[-1]
    assert rows[-1].endswith("about 0:03:40.")


def test_a_plan_is_measured(small, digits):
    mesh = make_mesh()
    model = find_model(small(), None, digits.shape, digits.outputs)
    sweep, examples = make_sweep(small(), model, mesh), place(digits, mesh)
    cost = plan.measure(sweep, examples, plain_steps(20, 20))
    assert cost.compilation > cost.window > 0
    assert cost.memory > sum(np.asarray(array).nbytes for array in jax.tree.leaves(digits))


def test_a_dry_run_writes_nothing(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(plan, "measure", lambda *_: plan.Cost(1.0, 1.0, 0))
    out = tmp_path / "out"
    main(["run", "configs/digits.py", "--out", str(out), "--dry-run"])
    assert "100 runs of 1500 steps" in " ".join(capsys.readouterr().out.split())
    assert not out.exists()


def test_quiet_says_nothing(small, tmp_path, capsys):
    folder = tmp_path / "done"
    config = tmp_path / "study.py"
    config.write_text("from forked import STUDY as study\n")
    from forked import STUDY

    folder.mkdir()
    results.save_config(as_json(STUDY), known(STUDY), folder)
    results.save(results.blank(trace(STUDY)), folder)
    for name in ("report.html", "summary.json"):
        (folder / name).write_text(json.dumps({}))
    (folder / "metrics.csv").touch()
    checksums.add(folder, ["metrics.csv", "report.html", "summary.json"])
    main(["run", str(config), "--out", str(folder), "--quiet"])
    said = capsys.readouterr()
    assert (said.out, said.err) == ("", "")


@pytest.mark.parametrize(
    ("platform", "chosen", "kept"),
    [("cpu", None, None), ("gpu", None, "cache/compiled"), ("gpu", "theirs", "theirs")],
)
def test_compiled_programs_are_kept_on_accelerators(monkeypatch, platform, chosen, kept):
    monkeypatch.setattr(jax, "default_backend", lambda: platform)
    before = jax.config.jax_compilation_cache_dir
    try:
        jax.config.update("jax_compilation_cache_dir", chosen)
        monkeypatch.setattr(devices.pooch, "os_cache", lambda _: Path("cache"))
        keep_compiled()
        assert jax.config.jax_compilation_cache_dir == kept
    finally:
        jax.config.update("jax_compilation_cache_dir", before)


def test_without_a_home_nothing_is_kept(monkeypatch):
    def no_home(_):
        raise RuntimeError("Could not determine home directory.")

    before = jax.config.jax_compilation_cache_dir
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    monkeypatch.setattr(devices.pooch, "os_cache", no_home)
    try:
        jax.config.update("jax_compilation_cache_dir", None)
        keep_compiled()
        assert jax.config.jax_compilation_cache_dir is None
    finally:
        jax.config.update("jax_compilation_cache_dir", before)


def test_an_accelerator_that_is_absent_is_a_line(monkeypatch):
    def none():
        raise RuntimeError("Unable to initialize backend 'cuda':\nlong")

    monkeypatch.setenv("JAX_PLATFORMS", "cuda")
    monkeypatch.setattr(jax, "devices", none)
    with pytest.raises(DeviceError, match="JAX_PLATFORMS=cuda: JAX finds no such device") as said:
        find_devices()
    assert "\n" not in str(said.value)


def test_list_survives_any_folder(small, tmp_path, capsys, monkeypatch):
    begun(small(), tmp_path / "a")
    odd = {"b": "[" * 100000, "c": '{"norms": [1, 2]}', "d": "[]", "e": "{}", "f": "\x00"}
    for name, text in odd.items():
        (tmp_path / name).mkdir()
        (tmp_path / name / "config.json").write_text(text)
    (tmp_path / "g" / "config.json").mkdir(parents=True)
    begun(small(), tmp_path / "h\x1b[2J")
    (tmp_path / "h\x1b[2J" / "metrics.nc").write_bytes(b"CDF")
    checkpoint.clear(tmp_path / "h\x1b[2J")
    rows = listed(tmp_path, capsys, monkeypatch)
    assert len(rows) == 8
    assert sum("cannot be read" in row for row in rows) == 7
    assert "h\\x1b[2J" in rows[-1]
