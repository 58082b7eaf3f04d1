"""Events for TensorBoard, read back: every point of every run, once, whatever happened."""

import io
import signal
import struct
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from forked import Workshop, die_at
from rich.console import Console
from tensorboardX.proto import event_pb2
from tensorboardX.record_writer import masked_crc32c

from experiments.__main__ import main
from experiments.runner import results
from experiments.runner.events import Events, run_folder
from experiments.runner.folder import EVENTS, events_of
from experiments.runner.rows import ROWS, Evaluation
from experiments.runner.run import _may_go_on
from experiments.study.trace import trace

Event = vars(event_pb2)["Event"]


def read(folder: Path) -> list:
    """The events of the one file in `folder`, their checksums checked."""
    (path,) = folder.iterdir()
    assert ".tfevents." in path.name
    content, events = path.read_bytes(), []
    while content:
        (length,) = struct.unpack("<Q", content[:8])
        record = content[12 : 12 + length]
        sums = struct.unpack("<I", content[8:12]) + struct.unpack("<I", content[12 + length :][:4])
        assert sums == (masked_crc32c(content[:8]), masked_crc32c(record))
        events.append(Event.FromString(record))
        content = content[16 + length :]
    assert events[0].file_version == "brain.Event:2"
    return events[1:]


def points(folder: Path) -> dict[tuple[str, int], float]:
    """(tag, step) -> value."""
    found = {}
    for event in read(folder):
        for value in event.summary.value:
            assert (value.tag, event.step) not in found
            found[value.tag, event.step] = value.simple_value
    return found


def assert_all_points(folder: Path) -> None:
    """The events in `folder` are the rows in it."""
    runs = pd.read_csv(folder / ROWS).groupby(["norm", "learning_rate", "seed"])
    found = [path for path in (folder / EVENTS).rglob("*") if path.is_file()]
    assert len(found) == len(runs)
    for (norm, rate, seed), rows in runs:
        table = rows.set_index("step").drop(columns=["norm", "learning_rate", "seed"])
        expected = table.astype(np.float32).stack().dropna()
        measured = points(folder / EVENTS / run_folder(norm, rate, seed))
        assert measured == {(tag, step): value for (step, tag), value in expected.items()}


@pytest.fixture(scope="module")
def workshop(tmp_path_factory):
    return Workshop(tmp_path_factory.mktemp("workshop"))


def test_killed_and_resumed_with_the_flag_or_without_there_is_every_point_once(workshop, tmp_path):
    for fate in ((7, "half"), (3, "whole")):
        status, said = workshop.carry_out(
            tmp_path, "--tensorboard", prepare=die_at, prepared_with=fate
        )
        assert status == -signal.SIGKILL, said
    status, said = workshop.carry_out(tmp_path)
    assert (status, "Continuing at step" in said) == (0, True)
    assert_all_points(tmp_path)


def test_events_that_cannot_go_on_are_said_to_stop(tmp_path, monkeypatch):
    def goes_on():
        text = io.StringIO()
        console = Console(file=text, width=40)
        return _may_go_on(events_of(tmp_path), tmp_path, console), text.getvalue()

    assert goes_on() == (False, "")  # there are none
    folder = tmp_path / EVENTS / run_folder("no norm", 0.1, 0)
    folder.mkdir(parents=True)
    (folder / "events.out.tfevents.01700000000000000000").touch()
    assert goes_on() == (True, "")
    monkeypatch.setattr("experiments.runner.run.find_spec", lambda name: None)
    said = f"{tmp_path / EVENTS}: stops here, for want of a package: pip install tensorboardX\n"
    assert goes_on() == (False, said)


def test_asked_for_after_the_end(workshop, tmp_path):
    assert workshop.carry_out(tmp_path)[0] == 0
    assert not (tmp_path / EVENTS).exists()
    assert workshop.carry_out(tmp_path, "--tensorboard")[0] == 0
    assert_all_points(tmp_path)


def test_a_folder_for_each_run():
    assert run_folder("batch norm", 0.1, 3) == Path("batch norm/lr=0.1,seed=3")
    assert run_folder("with/without", 1e25, 0) == Path("with%2Fwithout/lr=1e+25,seed=0")
    assert run_folder("..", 1.0, 0) == Path("%2E./lr=1.0,seed=0")


def test_no_two_runs_share_a_folder(tmp_path):
    labels = ["a/b", "a%2Fb", "a%252Fb", ".", "..", "%2E", "_..", "../../x", "é" * 200, "é" * 201]
    labels += ["x" * 250 + end for end in "ab"]
    labels += [str(run_folder(label, 1.0, 0).parent) for label in labels]
    folders = {run_folder(label, 1.0, 0) for label in dict.fromkeys(labels)}
    assert len(folders) == len(dict.fromkeys(labels))
    for folder in folders:
        (tmp_path / "tensorboard" / folder).mkdir(parents=True)
        assert len(folder.parts) == 2
        assert ".." not in folder.parts


def test_only_our_events_are_removed(small, tmp_path):
    folder = tmp_path / EVENTS / run_folder("no norm", 0.1, 0)
    folder.mkdir(parents=True)
    mine = [
        folder / "events.out.tfevents.1700000000.host.1.0",
        folder / "notes.txt",
        tmp_path / EVENTS / "other" / "events.out.tfevents.01700000000000000000",
    ]
    mine[-1].parent.mkdir()
    for path in mine:
        path.write_text("")
    dataset = results.blank(trace(small()))
    dataset.test_loss[...] = 0.5
    for _ in range(2):
        Events(tmp_path).begin(dataset, 20)
        assert all(path.exists() for path in mine)
        assert len([*folder.iterdir()]) == 3


def test_what_was_not_measured_is_no_point(small, tmp_path):
    dataset = results.blank(trace(small()))
    dataset.test_loss[...] = 0.5
    Events(tmp_path).append(dataset, Evaluation("no norm", 0))
    assert points(tmp_path / EVENTS / run_folder("no norm", 0.1, 0)) == {("test_loss", 0): 0.5}


def test_without_its_library_it_says_what_to_install(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("experiments.commands.run.find_spec", lambda name: None)
    config = str(Path(__file__).parents[1] / "short_study.py")
    with pytest.raises(SystemExit) as stopped:
        main(["run", config, "--out", str(tmp_path / "out"), "--tensorboard"])
    assert stopped.value.code == 2
    said = capsys.readouterr().err.strip()
    assert said == "--tensorboard: needs a package that is absent: pip install tensorboardX"
    assert not (tmp_path / "out").exists()
