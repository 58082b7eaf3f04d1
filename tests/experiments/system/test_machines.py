"""Two real processes, one of them with the folder, are one."""

import contextlib
import shutil
import signal
import socket
import time
from pathlib import Path

import jax
import numpy as np
import pytest
import xarray as xr
from forked import (
    Workshop,
    as_arrays,
    behind_a_proxy,
    die_at,
    full_disk_at,
    on_devices,
    on_devices_found_late,
    other_data,
    saves_once,
    signalled_at,
    slurm_task,
    small_mnist,
)

from experiments.__main__ import main
from experiments.runner import checkpoint
from experiments.system import lock, machines, meeting
from experiments.system.machines import Meeting

# Before that of the checkpoint of step 6: each file's and each folder's, the logs' before them.
FILES = 5
FLUSHES = 2 * FILES - 1 + 3
# A study that uses JAX while it is read, which processes that are to meet must not have done.
CONFIG = """
import dataclasses
import jax
from forked import STUDY

study = dataclasses.replace(STUDY, norms={"one": None}, steps=8)
jax.random.key(0)
"""
SECONDS_TO_END = 90  # on a busy machine; JAX misses a process after 100


@pytest.fixture(scope="module")
def workshop(tmp_path_factory):
    folder = tmp_path_factory.mktemp("workshop")
    config = folder / "study.py"
    config.write_text(CONFIG)
    return Workshop(folder, devices=1, config=config, fake=True)


@pytest.fixture(scope="module")
def school(tmp_path_factory):
    """Where training is training."""
    folder = tmp_path_factory.mktemp("school")
    config = folder / "study.py"
    config.write_text(CONFIG)
    return Workshop(folder, devices=1, config=config)


@pytest.fixture(scope="module")
def alone(workshop, tmp_path_factory):
    """The folder of one process."""
    folder = tmp_path_factory.mktemp("alone")
    status, said = workshop.carry_out(folder)
    assert status == 0, said
    return folder


def free_port(lowest: int = 0) -> int:
    """Any, or one of the 4096 from `lowest`."""
    for port in range(lowest, lowest + 4096) if lowest else [0]:
        with socket.socket() as free, contextlib.suppress(OSError):
            free.bind(("127.0.0.1", port))
            return free.getsockname()[1]
    raise OSError(f"No port is free from {lowest}.")


class Pair:
    """Two processes of one study: the folder of the second must stay empty."""

    def __init__(
        self, workshop, folder, arguments=((), ()), prepare=(None, None), with_=((), ()), **chosen
    ):
        flags = ["--coordinator", f"127.0.0.1:{free_port()}", "--num-processes", "2"]
        self.elsewhere = folder.with_name(folder.name + "-elsewhere")
        self.started = [
            workshop.start(
                (folder, self.elsewhere)[index],
                *([] if prepare[0] is slurm_task else [*flags, "--process-id", str(index)]),
                *arguments[index],
                prepare=prepare[index],
                prepared_with=with_[index],
                **chosen,
            )
            for index in range(2)
        ]

    def end(self) -> list[int]:
        begun = time.monotonic()
        statuses = [one.end() for one in self.started]
        assert time.monotonic() - begun < SECONDS_TO_END
        assert not self.elsewhere.exists()
        return statuses

    @property
    def said(self) -> list[str]:
        return [one.said for one in self.started]


@pytest.fixture(scope="module")
def left(workshop, tmp_path_factory):
    """The folder of two processes, whose disk was full at the checkpoint of step 6."""
    folder = tmp_path_factory.mktemp("left") / "out"
    pair = Pair(workshop, folder, prepare=(full_disk_at, None), with_=((FLUSHES,), ()))
    assert pair.end() == [1, 1], pair.said
    assert "No space left on device" in pair.said[0]
    assert pair.said[1] == ""
    return folder


def assert_same_numbers(folder, alone):
    mine, theirs = (xr.load_dataset(path / "metrics.nc") for path in (folder, alone))
    for name, table in as_arrays(theirs).items():
        np.testing.assert_array_equal(mine[name].values, table, err_msg=name)
    names = [{str(path.relative_to(top)) for path in top.rglob("*")} for top in (folder, alone)]
    assert names[0] == names[1]


def test_two_processes_give_the_numbers_of_one(school, tmp_path):
    # The clock of the first says when to save; the other's would say: always.
    pair = Pair(school, tmp_path / "out", prepare=(saves_once, behind_a_proxy))
    assert pair.end() == [0, 0], pair.said
    status, said = school.carry_out(tmp_path / "alone")
    assert status == 0, said
    assert_same_numbers(tmp_path / "out", tmp_path / "alone")
    first, second = pair.said
    assert "3 learning rates x 1 seed, 8 steps each, on 2 devices" in first
    assert second == ""


def test_both_go_on_as_tasks_of_slurm(workshop, alone, left, tmp_path):
    folder = shutil.copytree(left, tmp_path / "out")
    port = free_port(61440)  # JAX has Slurm's tasks meet at this plus the job's number
    tasks = {"prepare": (slurm_task, slurm_task), "with_": ((0, port), (1, port))}
    pair = Pair(workshop, folder, **tasks)
    assert pair.end() == [0, 0], pair.said
    assert "Continuing at step 4 of 8." in pair.said[0]
    assert_same_numbers(folder, alone)


def test_one_goes_on_where_two_were(workshop, alone, left, tmp_path):
    folder = shutil.copytree(left, tmp_path / "out")
    status, said = workshop.carry_out(folder)
    assert (status, "Continuing at step 4 of 8." in said) == (0, True)
    assert_same_numbers(folder, alone)


def test_a_signal_to_one_saves_and_stops_both(workshop, tmp_path):
    folder = tmp_path / "out"
    # To process 0 as to one that is alone.
    fate = (3, signal.SIGTERM)
    pair = Pair(workshop, folder, prepare=(None, signalled_at), with_=((), fate))
    assert pair.end() == [143, 143], pair.said
    assert checkpoint.peek(folder).done == 4
    assert pair.said[0].splitlines()[-1] == "Saved; the same command goes on from here."
    assert pair.said[1] == ""


@pytest.mark.parametrize("killed", [0, 1])
def test_when_one_is_killed_the_other_ends(workshop, tmp_path, killed):
    pair = Pair(workshop, tmp_path / "out")
    pair.started[0].wait_until_it_says("on 2 devices")
    pair.started[killed].kill()
    statuses = pair.end()
    assert statuses[killed] == -signal.SIGKILL
    assert statuses[1 - killed] not in (0, None)
    if killed == 1:
        assert "Process 0 cannot go on: " in pair.said[0], pair.said[0]
        assert "Traceback" not in pair.said[0]


def test_a_folder_in_use_ends_both(workshop, tmp_path):
    with lock.hold(tmp_path / "out"):
        pair = Pair(workshop, tmp_path / "out")
        assert pair.end() == [2, 2], pair.said
    assert "is at work there" in pair.said[0].splitlines()[-1]
    assert pair.said[1] == ""


def test_another_study_is_noticed(workshop, tmp_path):
    pair = Pair(workshop, tmp_path / "out", arguments=((), ("--seeds", "3")))
    assert pair.end() == [2, 2], pair.said
    assert pair.said[0].splitlines()[-1] == (
        "Process 1 was given a study other than process 0: give all of them the same."
    )
    assert pair.said[1] == ""
    assert not (tmp_path / "out").exists()


def test_data_that_only_one_has(school, tmp_path):
    mnist = ("--data", "mnist")
    absent = ("--data-dir", str(tmp_path / "absent"))
    pair = Pair(
        school,
        tmp_path / "out",
        arguments=(mnist, (*mnist, *absent)),
        prepare=(small_mnist, None),
    )
    assert pair.end() == [2, 2], pair.said
    assert "absent: has neither" in pair.said[1]
    assert not (tmp_path / "out").exists()


def test_other_data_is_noticed(school, tmp_path):
    pair = Pair(school, tmp_path / "out", prepare=(None, other_data))
    assert pair.end() == [2, 2], pair.said
    assert pair.said[0].splitlines()[-1].startswith("Process 1 was given data other than")
    assert pair.said[1] == ""


@pytest.mark.parametrize("find", [on_devices, on_devices_found_late])
def test_processes_with_more_devices_than_others(workshop, tmp_path, find):
    uneven = {"prepare": (None, find), "with_": ((), (2,))}
    pair = Pair(workshop, tmp_path / "out", **uneven)
    assert pair.end() == [2, 2], pair.said
    assert pair.said[0].splitlines()[-1] == (
        "Every process needs as many devices as the others, found 1 in process 0, 2 in process 1."
    )


SPREAD = """
import dataclasses
from forked import STUDY
from jbn import Standard

study = dataclasses.replace(
    STUDY, norms={"bn": Standard()}, learning_rates=(0.1, 1.0), steps=4, data_parallel=True
)
"""


@pytest.fixture(scope="module")
def spread(tmp_path_factory):
    config = tmp_path_factory.mktemp("spread") / "spread.py"
    config.write_text(SPREAD)
    return config


def test_batches_over_two_processes_are_those_over_two_devices(school, spread, tmp_path):
    pair = Pair(school, tmp_path / "out", config=spread)
    assert pair.end() == [0, 0], pair.said
    alone = tmp_path / "alone"
    status, said = school.carry_out(alone, config=spread, prepare=on_devices, prepared_with=(2,))
    assert status == 0, said
    mine, theirs = (xr.load_dataset(path / "metrics.nc") for path in (tmp_path / "out", alone))
    for name, table in as_arrays(theirs).items():  # two numbers have one sum
        np.testing.assert_allclose(mine[name].values, table, rtol=1e-5, atol=1e-6, err_msg=name)


def test_a_plan_of_both(workshop, tmp_path):
    dry = ("--dry-run",)
    pair = Pair(workshop, tmp_path / "out", arguments=(dry, dry))
    assert pair.end() == [0, 0], pair.said
    assert "on 2 devices" in " ".join(pair.said[0].split())
    assert pair.said[1] == ""


@pytest.mark.long  # spread batches above, and killed runs in test_resume
def test_spread_batches_killed_and_resumed(school, tmp_path):
    folder, alone = tmp_path / "out", tmp_path / "alone"
    for out, fate in ((folder, (FILES, "half")), (folder, ()), (alone, ())):
        prepare = {"prepare": die_at, "prepared_with": fate} if fate else {}
        status, said = school.carry_out(out, "--data-parallel", **prepare)
        assert status == (-signal.SIGKILL if fate else 0), said
        assert ("Continuing at step 4" in said) == (out == folder and not fate)
    assert_same_numbers(folder, alone)


def test_a_batch_that_does_not_divide(workshop, tmp_path):
    spread = ("--data-parallel", "--batch-size", "13")
    pair = Pair(workshop, tmp_path / "out", arguments=(spread, spread))
    assert pair.end() == [2, 2], pair.said
    needed = "batch_size=13: needs a multiple of the 2 devices, with data_parallel=True."
    assert pair.said[0].splitlines()[-1] == needed


@pytest.mark.parametrize(
    ("flags", "says"),
    [
        ("--coordinator h:1", "--num-processes and --process-id missing."),
        ("--process-id 0", "--coordinator and --num-processes missing."),
        ("--coordinator h --num-processes 2 --process-id 0", "--coordinator h: needs HOST:PORT"),
        ("--coordinator h:0 --num-processes 2 --process-id 0", "needs HOST:PORT"),
        ("--coordinator h:65536 --num-processes 2 --process-id 0", "needs HOST:PORT"),
        ("--coordinator :80 --num-processes 2 --process-id 0", "needs HOST:PORT"),
        ("--coordinator h:1 --num-processes 0 --process-id 0", "--num-processes 0: needs"),
        ("--coordinator h:1 --num-processes 2 --process-id 2", "--process-id 2: needs"),
        ("--coordinator h:1 --num-processes 2 --process-id -1", "--process-id -1: needs"),
    ],
)
def test_flags_that_make_no_meeting(tmp_path, capsys, flags, says):
    assert says in refused(tmp_path, capsys, *flags.split())


def test_nobody_listens(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(meeting, "SECONDS_TO_MEET", 0.3)
    flags = f"--coordinator 127.0.0.1:{free_port()} --num-processes 2 --process-id 1"
    said = refused(tmp_path, capsys, *flags.split())
    assert "nobody listens there after 0 s (Connection refused)" in said


def test_a_port_that_is_taken(tmp_path, capsys):
    with socket.create_server(("", 0)) as server:
        address = f"127.0.0.1:{server.getsockname()[1]}"
        flags = f"--coordinator {address} --num-processes 2 --process-id 0"
        assert "cannot listen there (Address" in refused(tmp_path, capsys, *flags.split())


def refused(folder, capsys, *flags):
    config = Path(__file__).parents[1] / "short_study.py"
    with pytest.raises(SystemExit) as stopped:
        main(["run", str(config), "--out", str(folder / "out"), *flags])
    assert stopped.value.code == 2
    said = capsys.readouterr().err.strip()
    assert "\n" not in said
    assert not (folder / "out").exists()
    return said


LAUNCHERS = ("SLURM_STEP_NUM_TASKS", "OMPI_COMM_WORLD_SIZE", "PMI_SIZE", "JOB_COMPLETION_INDEX")


@pytest.mark.parametrize(
    ("environment", "asked"),
    [
        ({}, False),
        ({"SLURM_STEP_NUM_TASKS": "1", "SLURM_JOB_ID": "7"}, False),
        ({"SLURM_STEP_NUM_TASKS": "2"}, True),
        ({"OMPI_COMM_WORLD_SIZE": "1"}, False),
        ({"OMPI_COMM_WORLD_SIZE": "2"}, True),
        ({"PMI_SIZE": "2"}, True),
        ({"KUBERNETES_SERVICE_HOST": "10.0.0.1"}, False),
        ({"JOB_COMPLETION_INDEX": "0"}, True),
    ],
    ids=str,
)
def test_jax_is_asked_for_a_cluster_where_one_is(monkeypatch, environment, asked):
    for name in LAUNCHERS:
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    calls = []
    monkeypatch.setattr(jax.distributed, "initialize", lambda *_: calls.append(True))
    machines.join(Meeting(None, None, None), print)
    assert bool(calls) == asked


def test_a_cluster_that_jax_cannot_find_is_no_single_process(monkeypatch, tmp_path, capsys):
    def initialize():
        raise ValueError("coordinator_address should be defined.")

    monkeypatch.setattr(jax.distributed, "initialize", initialize)
    monkeypatch.setenv("PMI_SIZE", "2")
    said = refused(tmp_path, capsys)
    assert said.startswith("PMI_SIZE=2 says that this process is one of several")
    assert "Give --coordinator" in said


def test_a_tpu_without_a_cluster_is_a_machine_of_its_own(monkeypatch):
    calls = []

    def initialize():
        calls.append(True)
        raise ConnectionError("no metadata")

    for name in LAUNCHERS:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(jax.distributed, "initialize", initialize)
    before = jax.config.jax_platforms
    try:
        jax.config.update("jax_platforms", "tpu,cpu")
        machines.join(Meeting(None, None, None), print)
    finally:
        jax.config.update("jax_platforms", before)
    assert calls
    assert not machines.several()
