"""Whatever happens to a run, its folder ends up as if nothing had."""

import json
import os
import random
import shutil
import signal
import time

import numpy as np
import pytest
import xarray as xr
from forked import Workshop, as_arrays, die_at, full_disk_at, on_devices, wait_for_ever

from experiments.runner import checkpoint, results
from experiments.system import lock

KILLS = 8
MOMENTS = ("half", "whole", "named", "swept")
# config.json, metrics.csv, a checkpoint at each evaluation of two networks; then metrics.csv and
# metrics.nc, each with its checksum
FILES = 2 + 40 + 4


@pytest.fixture(scope="module")
def workshop(tmp_path_factory):
    return Workshop(tmp_path_factory.mktemp("workshop"))


@pytest.fixture(scope="module")
def undisturbed(workshop, tmp_path_factory):
    """The folder of a run that nothing happened to."""
    folder = tmp_path_factory.mktemp("undisturbed")
    status, said = workshop.carry_out(folder)
    assert status == 0, said
    return folder


@pytest.fixture(scope="module")
def left(workshop, tmp_path_factory):
    """A folder whose run was killed as it saved the fifth checkpoint."""
    folder = tmp_path_factory.mktemp("left")
    status, said = workshop.carry_out(folder, prepare=die_at, prepared_with=(7, "half"))
    assert status == -signal.SIGKILL, said
    return folder


@pytest.fixture
def half_way(left, tmp_path):
    """A copy of `left`: the checkpoints of step 6 and 8, and half a file of step 10."""
    return shutil.copytree(left, tmp_path / "half_way")


def files(folder):
    return {str(path.relative_to(folder)) for path in folder.rglob("*")}


def metrics(folder):
    dataset = xr.load_dataset(folder / "metrics.nc").drop_vars("seconds_per_step")
    dataset.attrs.pop("command")  # names the folder
    return dataset


def assert_same(folder, undisturbed):
    assert files(folder) == files(undisturbed)
    assert metrics(folder).to_netcdf() == metrics(undisturbed).to_netcdf()
    for name in ("config.json", "metrics.csv", "summary.json"):
        assert (folder / name).read_bytes() == (undisturbed / name).read_bytes()


def test_the_same_command_twice_gives_the_same_bytes(workshop, undisturbed, tmp_path):
    assert workshop.carry_out(tmp_path)[0] == 0
    assert_same(tmp_path, undisturbed)
    assert files(tmp_path) == {
        "config.json",
        "metrics.csv",
        "metrics.nc",
        "SHA256SUMS",
        "summary.json",
        "report.html",
    }


def test_killed_again_and_again(workshop, undisturbed, tmp_path):
    chance = random.Random(5)
    ended = []
    for kill in range(KILLS):
        # Three files at most, whatever the clock does: a fast machine does not finish first.
        fate = (chance.randint(1, 3), chance.choice(MOMENTS)) if kill % 4 else (3, "half")
        started = workshop.start(tmp_path, prepare=die_at, prepared_with=fate)
        if kill % 4 == 0:
            time.sleep(chance.uniform(0, 1.5))
            started.kill()
        ended.append(started.end())
    assert ended == [-signal.SIGKILL] * KILLS
    status, said = workshop.carry_out(tmp_path)
    assert status == 0, said
    assert "Continuing at step" in said
    assert_same(tmp_path, undisturbed)


@pytest.mark.parametrize(
    "fate", [(FILES - 3, "named"), (FILES - 1, "named"), (FILES, "half"), (FILES, "named")], ids=str
)
def test_killed_at_the_very_end(workshop, undisturbed, tmp_path, fate):
    status, _ = workshop.carry_out(tmp_path, prepare=die_at, prepared_with=fate)
    assert status == -signal.SIGKILL
    status, said = workshop.carry_out(tmp_path)
    assert (status, "finished before" in said) == (0, fate == (FILES, "named"))
    assert_same(tmp_path, undisturbed)


def test_left_half_way(left):
    assert files(left / "checkpoints") == {
        "000000000006.ckpt",
        "000000000008.ckpt",
        "000000000010.ckpt.part",
        "measured.log",
    }


def cut(path):
    os.truncate(path, path.stat().st_size - 1)


def empty(path):
    path.write_bytes(b"")


def flip_a_bit(path):
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 0x10
    path.write_bytes(content)


@pytest.mark.parametrize("damage", [cut, empty, flip_a_bit])
def test_a_damaged_checkpoint_is_named_and_the_one_before_taken(
    workshop, undisturbed, half_way, damage
):
    newest = half_way / "checkpoints" / "000000000008.ckpt"
    damage(newest)
    status, said = workshop.carry_out(half_way)
    assert status == 0, said
    assert f"{newest}: damaged" in said
    assert "Continuing at step 6 of 80." in said
    assert_same(half_way, undisturbed)


def test_with_all_checkpoints_damaged_it_starts_over(workshop, undisturbed, half_way):
    for path in (half_way / "checkpoints").glob("*.ckpt"):
        empty(path)
    status, said = workshop.carry_out(half_way)
    assert (status, "Continuing" in said) == (0, False)
    assert_same(half_way, undisturbed)


# Each file is flushed, and then its folder: metrics.csv's are the first two.
@pytest.mark.parametrize(("flush", "file"), [(3, "measured.log"), (4, "000000000010.ckpt")])
def test_a_full_disk(workshop, undisturbed, half_way, flush, file):
    before = files(half_way) - {"checkpoints/000000000010.ckpt.part", ".lock"}
    status, said = workshop.carry_out(half_way, prepare=full_disk_at, prepared_with=(flush,))
    assert status == 1
    assert f"[Errno 28] No space left on device: '{half_way / 'checkpoints' / file}'" in said
    assert "Traceback" not in said
    assert files(half_way) == before
    status, said = workshop.carry_out(half_way)
    assert (status, "Continuing at step 8 of 80." in said) == (0, True)
    assert_same(half_way, undisturbed)


@pytest.mark.parametrize("damage", [cut, empty, flip_a_bit])
def test_a_damaged_log_is_named_and_never_believed(workshop, undisturbed, half_way, damage):
    log = half_way / "checkpoints" / "measured.log"
    os.truncate(log, measured_until(half_way, 8))  # what was written behind it is of no checkpoint
    damage(log)
    status, said = workshop.carry_out(half_way)
    assert status == 0, said
    assert f"{log}: damaged" in said
    # Cut by a byte it still has all that the checkpoint before needs.
    assert ("Continuing at step 6 of 80." in said) == (damage is cut)
    assert_same(half_way, undisturbed)


def measured_until(folder, step):
    return checkpoint.read(folder / "checkpoints" / f"{step:012}.ckpt").mark[0]


@pytest.mark.parametrize(
    ("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)], ids=["SIGINT", "SIGTERM"]
)
def test_asked_to_stop_it_saves(workshop, undisturbed, half_way, number, status):
    started = workshop.start(half_way)
    started.wait_until_it_says("Continuing at step 8")
    started.kill(number)
    assert started.end() == status
    assert started.said.splitlines()[-1] == "Saved; the same command goes on from here."
    assert not (half_way / ".lock").exists()
    ended, said = workshop.carry_out(half_way)
    assert (ended, "Continuing at step" in said) == (0, True)
    assert_same(half_way, undisturbed)


@pytest.mark.parametrize("second", [signal.SIGINT, signal.SIGTERM])
def test_asked_twice_it_stops_at_once(workshop, tmp_path, second):
    started = workshop.start(tmp_path, prepare=wait_for_ever)
    started.wait_until_it_says("waiting")
    started.kill(signal.SIGINT)
    time.sleep(0.2)
    assert started.process.is_alive()
    started.kill(second)
    assert started.end() == 128 + second


def test_a_second_process_is_refused(workshop, half_way):
    before = files(half_way)
    with lock.hold(half_way):
        status, said = workshop.carry_out(half_way)
    assert status == 2
    assert said.startswith(f"{half_way}: process {os.getpid()} on ")
    assert said.count("\n") == 1
    assert files(half_way) == before - {".lock"}


def test_the_lock_of_the_dead_is_taken_over(workshop, tmp_path):
    started = workshop.start(tmp_path, prepare=wait_for_ever)
    started.wait_until_it_says("waiting")
    assert f"process {started.process.pid} on" in (lock.holder(tmp_path) or "")
    started.kill()
    started.end()
    assert lock.holder(tmp_path) is None
    status, said = workshop.carry_out(tmp_path)
    assert status == 0, said
    assert said.startswith(f"process {started.process.pid} on ")


def test_another_config_is_refused(workshop, half_way):
    before = files(half_way)
    status, said = workshop.carry_out(half_way, "--batch-size", "9", "--seeds", "0", "1")
    assert status == 2
    assert said.splitlines()[-1] == (
        f"{half_way}: is another study's: batch_size=8, seeds=[0]; not batch_size=9, "
        "seeds=[0, 1]. Choose another folder with --out, or remove this one."
    )
    assert files(half_way) == before - {".lock"}


def test_a_folder_older_than_a_field_of_the_config(workshop, undisturbed, tmp_path):
    folder = shutil.copytree(undisturbed, tmp_path / "old")
    dataset = results.load(folder)
    fields = json.loads(dataset.attrs["config"])
    assert fields.pop("data_parallel") is False
    results.save(dataset.assign_attrs(config=json.dumps(fields)), folder)
    (folder / "config.json").write_text(json.dumps(fields))
    status, said = workshop.carry_out(folder)
    assert (status, "finished before" in said) == (0, True)
    assert workshop.carry_out(folder, "--data-parallel")[0] == 2


def test_finished_it_is_left_alone(workshop, undisturbed, tmp_path):
    folder = shutil.copytree(undisturbed, tmp_path / "finished")
    (folder / "report.html").unlink()
    (folder / "metrics.nc").chmod(0o444)
    written = (folder / "metrics.nc").stat().st_mtime_ns
    for _ in range(2):
        status, said = workshop.carry_out(folder)
        assert (status, "finished before" in said) == (0, True)
        assert (folder / "report.html").is_file()
    assert (folder / "metrics.nc").stat().st_mtime_ns == written


def test_continued_on_another_number_of_devices(workshop, undisturbed, half_way):
    status, said = workshop.carry_out(half_way, prepare=on_devices, prepared_with=(3,))
    assert status == 0, said
    assert "perhaps not to the bit: devices, xla_flags" in said
    mine, theirs = metrics(half_way), metrics(undisturbed)
    assert json.loads(mine.attrs["environment"])["devices"] == 3
    for name, table in as_arrays(theirs).items():
        np.testing.assert_allclose(mine[name].values, table, rtol=1e-4, err_msg=name)
