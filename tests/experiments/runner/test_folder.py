"""A study's folder: the user's files in it stay, and damage to ours is named or made good."""

import dataclasses
import io
import json
import os
import random
import shutil
import subprocess
from contextlib import nullcontext
from pathlib import Path

import forked
import pytest
import xarray as xr
from forked import STUDY, Workshop
from rich.console import Console

from experiments.__main__ import main
from experiments.runner import checkpoint, folder, results, run
from experiments.runner.checkpoint import Checkpoint, Saver
from experiments.runner.folder import FolderError
from experiments.runner.measured import Mark, Record
from experiments.runner.rows import evaluated
from experiments.study.config import as_json
from experiments.study.trace import trace
from experiments.system import checksums
from experiments.system.checksums import DamagedError

KNOWN = {"data": "1f", "programs": {}, "lowered": "JAX"}


@pytest.fixture(scope="module")
def workshop(tmp_path_factory):
    return Workshop(tmp_path_factory.mktemp("workshop"))


@pytest.fixture(scope="module")
def finished(workshop, tmp_path_factory):
    path = tmp_path_factory.mktemp("finished") / "out"
    status, said = workshop.carry_out(path)
    assert status == 0, said
    return path


@pytest.fixture
def out(finished, tmp_path):
    """A copy of a finished study's folder."""
    return shutil.copytree(finished, tmp_path / "out")


def contents(path: Path) -> dict[str, bytes]:
    return {str(p.relative_to(path)): p.read_bytes() for p in path.rglob("*") if p.is_file()}


@pytest.mark.parametrize("name", [*folder.NAMES, "checkpoints/mine", "tensorboard/mine"])
def test_files_of_the_user_with_our_names_are_not_touched(tmp_path, name):
    (tmp_path / name).parent.mkdir(exist_ok=True)
    (tmp_path / name).write_text("mine")
    with pytest.raises(FolderError, match=f"has .*{name.split('/')[0]}, which a study would"):
        folder.check(STUDY, tmp_path)


def test_a_link_to_nothing_is_the_users_too(tmp_path):
    (tmp_path / "metrics.csv").symlink_to(tmp_path / "absent")
    with pytest.raises(FolderError, match="has metrics.csv"):
        folder.check(STUDY, tmp_path)


def test_other_files_of_the_user_stay(workshop, finished, tmp_path):
    mine = ["movie.mkv.part", "notes.txt", "data/metrics.nc", "x.part/y", "data.damaged"]
    for name in mine:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("mine")
    status, said = workshop.carry_out(tmp_path)
    assert status == 0, said
    assert set(contents(tmp_path)) == set(contents(finished)) | {*mine}
    assert all((tmp_path / name).read_text() == "mine" for name in mine)


def test_only_what_writers_of_ours_left_is_swept(tmp_path):
    folder.claim(STUDY, KNOWN, tmp_path)
    parts = ["metrics.nc.part", "config.json.part", "checkpoints/000000000002.ckpt.part"]
    mine = ["mine.part", "checkpoints/mine.part", "checkpoints/best.ckpt"]
    (tmp_path / "checkpoints").mkdir()
    for name in (*parts, *mine):
        (tmp_path / name).write_text("")
    (tmp_path / "metrics.csv.part").mkdir()  # nor does it stop anyone
    (tmp_path / "metrics.csv.part" / "mine").write_text("")
    folder.claim(STUDY, KNOWN, tmp_path)
    checkpoint.clear(tmp_path)
    assert set(contents(tmp_path)) == {"config.json", "metrics.csv.part/mine", *mine}


@pytest.mark.parametrize(
    "stray", ["checkpoints/.nfs0001", "checkpoints/.DS_Store", "checkpoints/old/000000000002.ckpt"]
)
def test_stray_files_do_not_stop_a_study(tmp_path, stray):
    saver = Saver(tmp_path)
    for done in range(1, 5):
        saver.save(Checkpoint(done, {}, Mark(), 0, "{}", {}))
        (tmp_path / stray).parent.mkdir(exist_ok=True)
        (tmp_path / stray).write_text("")
    checkpoint.clear(tmp_path)
    assert set(contents(tmp_path)) == {stray}


def test_checkpoints_may_be_a_link(tmp_path):
    (tmp_path / "scratch").mkdir()
    (tmp_path / "checkpoints").symlink_to("scratch")
    Saver(tmp_path).save(Checkpoint(1, {}, Mark(), 0, "{}", {}))
    checkpoint.clear(tmp_path)
    assert (tmp_path / "checkpoints").is_dir()
    assert not contents(tmp_path)


def test_what_cannot_be_removed_is_no_failure(tmp_path, monkeypatch):
    saver = Saver(tmp_path)

    def refuse(*_, **__):
        raise PermissionError("no")

    monkeypatch.setattr(Path, "unlink", lambda path, missing_ok=False: path.exists() and refuse())
    monkeypatch.setattr(os, "rmdir", refuse)
    for done in (1, 2, 3):
        saver.save(Checkpoint(done, {}, Mark(), 0, "{}", {}))
    checkpoint.clear(tmp_path)
    assert len(checkpoint.paths(tmp_path)) == 3


def test_the_checksums_are_those_of_sha256sum(out):
    names = {"metrics.nc", "metrics.csv", "summary.json", "report.html"}
    assert set(checksums.names(out)) == names
    subprocess.run(["sha256sum", "--check", "--strict", "SHA256SUMS"], cwd=out, check=True)


def flip(path: Path, bit: int) -> None:
    content = bytearray(path.read_bytes())
    content[bit // 8 % len(content)] ^= 1 << bit % 8
    path.write_bytes(content)


@pytest.mark.parametrize("command", ["run", "report", "list"])
def test_damaged_metrics_are_refused_by_everyone(out, command, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "1000")
    flip(out / "metrics.nc", random.randrange(8 * (out / "metrics.nc").stat().st_size))
    before = contents(out)
    more = [str(Path(forked.__file__).with_name("short_study.py")), "--out"]
    arguments = [command, *(more if command == "run" else []), str(out)]
    with nullcontext() if command == "list" else pytest.raises(SystemExit, match="2"):
        main(arguments)
    said = capsys.readouterr()
    says = f"{out}/metrics.nc: damaged: its checksum is not the one in SHA256SUMS."
    assert says in (said.out if command == "list" else said.err)
    assert said.err.count("\n") == (0 if command == "list" else 1)
    assert contents(out) == before


def test_any_bit_of_the_metrics(out):
    content, chance = (out / "metrics.nc").read_bytes(), random.Random(0)
    for _ in range(200):
        flip(out / "metrics.nc", chance.randrange(8 * len(content)))
        with pytest.raises(DamagedError):
            results.load(out)
        (out / "metrics.nc").write_bytes(content)
    results.load(out)


def test_without_checksums_it_says_how_to_trust_them(out):
    (out / "SHA256SUMS").unlink()
    with pytest.raises(FolderError, match="has no checksum in SHA256SUMS") as refused:
        folder.finished(out)
    subprocess.run(str(refused.value).partition("as it is: ")[2], shell=True, check=True)
    assert folder.finished(out) is not None


def carry_on(path: Path) -> str:
    """What is said when STUDY goes on in `path`, with nothing left to train."""
    said = io.StringIO()
    console = Console(file=said, width=1000)
    run.run(STUDY, path, data_dir=None, command="the same", console=console)
    return said.getvalue()


def measured_at(dataset, norm: str, step: int) -> dict:
    """What `results.record` wrote there."""
    last = int(dataset.step[-1])
    variables = {n: v.sel(norm=[norm]) for n, v in dataset.data_vars.items()}
    variables = {n: v for n, v in variables.items() if "step" in v.dims or step == last}
    at = {n: v.sel(step=step) if "step" in v.dims else v for n, v in variables.items()}
    seconds = at.pop("seconds_per_step").values
    by_run = {n: v.values.reshape(-1, *v.shape[3:]) for n, v in at.items()}
    return by_run | {"seconds_per_step": seconds}


def test_damaged_metrics_are_made_again_from_a_checkpoint(finished, out):
    dataset = results.load(out)
    done = len(STUDY.norms) * STUDY.steps
    mine = {"config": json.dumps(as_json(STUDY)), "data": STUDY.data.load().sha256()}
    saver = Saver(out)
    for norm, step in evaluated(dataset, done):
        saver.add(Record(norm, step, measured_at(dataset, norm, step)))
    saver.save(Checkpoint(done, {}, Mark(), 0, "{}", mine))
    flip(out / "metrics.nc", 80000)
    carry_on(out)
    assert (out / "metrics.nc.damaged").is_file()
    assert (out / "metrics.csv").read_bytes() == (finished / "metrics.csv").read_bytes()
    xr.testing.assert_equal(results.load(out), results.load(finished))


def test_the_metrics_of_another_study(out, tmp_path):
    other = dataclasses.replace(STUDY, seeds=(1,))
    results.save(results.blank(trace(other)), out)
    with pytest.raises(FolderError, match=r"is of another study than config\.json"):
        folder.finished(out)


@pytest.mark.parametrize("damage", ["cut", "gone", "edited"])
def test_damaged_rows_are_made_again(finished, out, damage):
    path = out / "metrics.csv"
    match damage:
        case "cut":
            os.truncate(path, 100)
        case "gone":
            path.unlink()
        case "edited":
            path.write_text(path.read_text().replace("0.1", "0.2"))
    assert f"{path}: made again" in carry_on(out)
    assert path.read_bytes() == (finished / "metrics.csv").read_bytes()
    assert path.with_name("metrics.csv.damaged").exists() == (damage != "gone")


def test_rows_lost_while_it_runs_are_there_at_the_end(small, tmp_path):
    from experiments.runner.rows import Evaluation, Rows

    dataset = results.blank(trace(small()))
    rows = Rows(tmp_path)
    rows.begin(dataset, 0)
    whole = Rows(tmp_path / "whole")
    (tmp_path / "whole").mkdir()
    (tmp_path / "metrics.csv").unlink()
    rows.append(dataset, Evaluation("no norm", 0))
    rows.append(dataset, Evaluation("no norm", 0))  # and another process's
    rows.end(dataset)
    whole.begin(dataset, 80)
    assert contents(tmp_path)["metrics.csv"] == contents(tmp_path)["whole/metrics.csv"]


@pytest.mark.parametrize("there", ["page", "folder"])
def test_a_page_of_the_users_is_not_replaced(tmp_path, there):
    page = tmp_path / "comparison.html"
    page.write_text("mine") if there == "page" else page.mkdir()
    with pytest.raises(FolderError, match="is there, and not of these studies"):
        folder.check_page(page, [tmp_path / "a", tmp_path / "b"])
    (tmp_path / "a").mkdir()
    results.save_config(as_json(STUDY), {}, tmp_path / "a")
    if there == "page":
        folder.check_page(page, [tmp_path / "a", tmp_path / "b"])


@pytest.mark.parametrize("text", ["[" * 100000, "{", "[1]", "\ud800"])
def test_a_config_that_is_none(tmp_path, text):
    (tmp_path / "config.json").write_bytes(text.encode(errors="surrogatepass"))
    with pytest.raises(FolderError, match=r"config\.json: is not"):
        folder.check(STUDY, tmp_path)


def test_a_config_that_cannot_be_read(tmp_path):
    (tmp_path / "config.json").mkdir()
    with pytest.raises(FolderError, match=r"config\.json: cannot be read: Is a directory"):
        folder.check(STUDY, tmp_path)
