"""A checkpoint comes back as it was, or is known to be damaged, or is refused."""

import errno
import os
import zlib

import chex
import jax
import numpy as np
import pytest
from flax.serialization import msgpack_serialize

from experiments.runner import checkpoint, measured
from experiments.runner.checkpoint import Checkpoint, CheckpointError, Saver, from_arrays, to_arrays
from experiments.runner.measured import LogError, Mark, Record
from experiments.system.files import SaveError, sweep_parts, write_whole

RUNS = 3
MINE = {"config": "{}", "data": "1f"}
STATES = {
    "weights": np.arange(8, dtype=np.float32).reshape(4, 2),
    "step": np.array([5, 5, 5, 5], np.int32),
}


def sample(done: int) -> Checkpoint:
    return Checkpoint(done, to_arrays(STATES, RUNS), Mark(), 1, "{}", MINE)


def seen(step: int) -> Record:
    return Record("a", step, {"loss": np.array([np.nan, step], np.float32)})


def found(directory, say=pytest.fail) -> checkpoint.Found:
    return checkpoint.unpack(checkpoint.newest(directory, MINE, say))


@pytest.fixture
def saved(tmp_path):
    """The file of a checkpoint."""
    Saver(tmp_path).save(sample(5))
    (path,) = checkpoint.paths(tmp_path)
    return path


def test_what_was_saved_comes_back(saved):
    back = checkpoint.read(saved)
    assert (back.done, back.diverged, back.environment) == (5, 1, "{}")
    chex.assert_trees_all_equal_dtypes(back.state, sample(5).state)
    chex.assert_trees_all_equal(from_arrays(back.state, STATES, RUNS)["step"], STATES["step"])


def test_every_bit_counts(saved):
    content = saved.read_bytes()
    for i in range(8 * len(content)):
        flipped = bytearray(content)
        flipped[i // 8] ^= 1 << i % 8
        saved.write_bytes(flipped)
        with pytest.raises(CheckpointError, match="damaged"):
            checkpoint.read(saved)


def test_every_byte_counts(saved):
    content = saved.read_bytes()
    for length in range(len(content)):
        saved.write_bytes(content[:length])
        with pytest.raises(CheckpointError, match="damaged"):
            checkpoint.read(saved)


def test_the_last_two_are_kept_in_the_order_of_their_steps(tmp_path):
    saver = Saver(tmp_path)
    for done in (8, 9, 10, 11):
        saver.save(sample(done))
    assert [checkpoint.read(path).done for path in checkpoint.paths(tmp_path)] == [11, 10]


def empty(path):
    path.write_bytes(b"")


def make_a_folder(path):
    path.unlink()
    path.mkdir()
    (path / "file").touch()


@pytest.mark.parametrize("damage", [empty, make_a_folder])
def test_a_damaged_one_is_named_and_set_aside(tmp_path, damage):
    saver = Saver(tmp_path)
    for done in (1, 2):
        saver.save(sample(done))
    newest = checkpoint.paths(tmp_path)[0]
    damage(newest)
    assert checkpoint.peek(tmp_path).done == 1
    assert newest.exists()
    said = []
    assert found(tmp_path, said.append).checkpoint.done == 1
    assert len(said) == 1
    assert str(newest) in said[0]
    assert not newest.exists()
    saver.save(sample(2))
    assert found(tmp_path).checkpoint.done == 2
    checkpoint.clear(tmp_path)
    assert not checkpoint.paths(tmp_path)


@pytest.mark.parametrize(
    "change",
    [
        lambda fields: fields | {"more": 1},
        lambda fields: {k: v for k, v in fields.items() if k != "state"},
        lambda _: [1, 2],
        lambda _: "text",
        lambda fields: fields | {"done": 2.5},
        lambda fields: fields | {"done": "2"},
        lambda fields: fields | {"state": "text"},
        lambda fields: fields | {"state": {"loss": 1}},
        lambda fields: fields | {"mark": [0, 0, 0]},
        lambda fields: fields | {"mark": [0, -1]},
        lambda fields: fields | {"mark": 3},
        lambda fields: fields | {"diverged": None},
        lambda fields: fields | {"environment": "{"},
        lambda fields: fields | {"environment": 1},
        lambda fields: fields | {"belongs_to": 1},
        lambda fields: fields | {"belongs_to": {"config": 1}},
    ],
)
def test_what_has_a_right_checksum_and_is_not_ours_is_damaged(saved, change):
    content = msgpack_serialize(change(sample(5)._asdict() | {"mark": [0, 0]}))
    packed = b"jbn checkpoint 3\n" + zlib.crc32(content).to_bytes(4, "big") + content
    saved.write_bytes(packed)
    with pytest.raises(CheckpointError, match="its content is no checkpoint's"):
        checkpoint.read(saved)


def test_one_of_another_version_is_said_to_be(saved):
    saved.write_bytes(saved.read_bytes().replace(b"checkpoint 3", b"checkpoint 2", 1))
    with pytest.raises(CheckpointError, match="of another version"):
        checkpoint.read(saved)


@pytest.mark.parametrize(
    ("theirs", "says"),
    [
        ({"config": "{1}"}, "with another config. Remove it"),
        ({"data": "2f", "config": "{1}"}, "with another config and another data. Remove it"),
        ({"program": "x"}, "with another program. Remove it"),
    ],
)
def test_one_of_another_study_is_refused(saved, tmp_path, theirs, says):
    with pytest.raises(CheckpointError, match=says):
        checkpoint.newest(tmp_path, MINE | theirs, pytest.fail)
    assert saved.exists()


def test_a_folder_without_checkpoints(tmp_path):
    assert checkpoint.newest(tmp_path, MINE, pytest.fail) == b""
    checkpoint.clear(tmp_path)


def save_three(directory) -> Saver:
    """Leaves the checkpoints of step 2 and 3, and the log of all three."""
    saver = Saver(directory)
    for step in (1, 2, 3):
        saver.add(seen(step))
        saver.save(sample(step))
    return saver


def log_of(directory):
    return directory / "checkpoints" / "measured.log"


def test_what_was_measured_is_written_once(tmp_path):
    saver = save_three(tmp_path)
    before = log_of(tmp_path).read_bytes()
    size = checkpoint.paths(tmp_path)[0].stat().st_size
    saver.add(seen(4))
    saver.add(seen(5))
    saver.save(sample(5))
    after = log_of(tmp_path).read_bytes()
    assert after.startswith(before)
    assert checkpoint.paths(tmp_path)[0].stat().st_size - size < 5  # the mark has larger numbers
    back = found(tmp_path)
    assert [(record.norm, record.step) for record in back.records] == [
        ("a", s) for s in range(1, 6)
    ]
    for record in back.records:
        chex.assert_trees_all_equal(record.measures, seen(record.step).measures)


def test_what_lies_behind_the_mark_is_overwritten(tmp_path):
    saver = save_three(tmp_path)
    whole = log_of(tmp_path).read_bytes()
    saver.add(seen(4))
    saver.save(sample(4))
    checkpoint.paths(tmp_path)[0].unlink()  # as if killed between log and checkpoint
    log_of(tmp_path).write_bytes(log_of(tmp_path).read_bytes() + b"and more")
    back = found(tmp_path)
    assert [record.step for record in back.records] == [1, 2, 3]
    again = Saver(tmp_path, back.checkpoint.mark)
    again.save(sample(4))
    assert log_of(tmp_path).read_bytes() == whole
    assert len(found(tmp_path).records) == 3


def test_every_bit_of_the_log_counts(tmp_path):
    save_three(tmp_path)
    path, content = log_of(tmp_path), log_of(tmp_path).read_bytes()
    mark = Mark(*checkpoint.read(checkpoint.paths(tmp_path)[0]).mark)
    assert mark.length == len(content)
    for i in range(8 * len(content)):
        flipped = bytearray(content)
        flipped[i // 8] ^= 1 << i % 8
        path.write_bytes(flipped)
        with pytest.raises(LogError, match="damaged"):
            measured.read(path, mark)
    for length in range(len(content)):
        path.write_bytes(content[:length])
        with pytest.raises(LogError, match=f"damaged: {length} bytes of {len(content)}"):
            measured.read(path, mark)


def test_the_damaged_record_is_named(tmp_path):
    save_three(tmp_path)
    content = bytearray(log_of(tmp_path).read_bytes())
    content[len(content) // 2] ^= 1
    log_of(tmp_path).write_bytes(content)
    with pytest.raises(LogError, match="damaged: record 2 of 3 is not as it was written"):
        measured.read(log_of(tmp_path), Mark(len(content), 1))


def test_a_log_torn_behind_the_mark_of_the_one_before_takes_that(tmp_path):
    save_three(tmp_path)
    os.truncate(log_of(tmp_path), log_of(tmp_path).stat().st_size - 1)
    said = []
    back = found(tmp_path, said.append)
    assert (back.checkpoint.done, len(back.records)) == (2, 2)
    assert len(said) == 1
    assert f"{log_of(tmp_path)}: damaged" in said[0]


@pytest.mark.parametrize("damage", [empty, make_a_folder])
def test_a_log_that_is_gone_begins_anew(tmp_path, damage):
    save_three(tmp_path)
    damage(log_of(tmp_path))
    said = []
    assert checkpoint.newest(tmp_path, MINE, said.append) == b""
    assert len(said) == 2
    saver = Saver(tmp_path)
    saver.add(seen(1))
    saver.save(sample(1))
    assert [record.step for record in found(tmp_path).records] == [1]


def test_another_studys_log_is_refused(tmp_path):
    save_three(tmp_path)
    (tmp_path / "other").mkdir()
    other = Saver(tmp_path / "other")
    for step in (4, 5, 6):
        other.add(seen(step))
        other.save(sample(step))
    log_of(tmp_path).write_bytes(log_of(tmp_path / "other").read_bytes())
    said = []
    assert checkpoint.newest(tmp_path, MINE, said.append) == b""
    assert "another study's" in said[0]


def test_the_log_is_not_written_through_a_link(tmp_path):
    victim = tmp_path / "victim"
    victim.write_text("mine")
    (tmp_path / "checkpoints").mkdir()
    log_of(tmp_path).symlink_to(victim)
    with pytest.raises(SaveError):
        Saver(tmp_path).save(sample(1))
    assert victim.read_text() == "mine"


def test_copies_that_fill_up_devices_are_not_saved_and_made_anew():
    arrays = to_arrays(STATES, RUNS)
    assert {len(array) for array in arrays.values()} == {RUNS}
    wider = jax.tree.map(lambda x: np.concatenate([x, x])[:5], STATES)
    filled = from_arrays(arrays, wider, RUNS)
    np.testing.assert_array_equal(filled["weights"], STATES["weights"][[0, 1, 2, 2, 2]])


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"weights": STATES["weights"][:, :1]}, r"\['weights'\] is float32\[3, 2\], needed"),
        ({"weights": STATES["weights"].astype(np.float16)}, r"needed is float16\[3, 2\]"),
        ({"bias": STATES["step"]}, r"\['bias'\] is only in one"),
    ],
    ids=["shape", "type", "structure"],
)
def test_another_programs_state_is_refused(change, says):
    with pytest.raises(CheckpointError, match=says):
        from_arrays(to_arrays(STATES, RUNS), STATES | change, RUNS)


def test_another_number_of_runs_is_refused():
    with pytest.raises(CheckpointError, match=r"int32\[3\], needed is int32\[2\]"):
        from_arrays(to_arrays(STATES, RUNS), STATES, RUNS - 1)


def test_saving_takes_a_small_part_of_the_time(tmp_path, monkeypatch):
    now = 0.0
    monkeypatch.setattr("time.monotonic", lambda: now)

    def slow_write(*_):
        nonlocal now
        now += 0.5

    monkeypatch.setattr(checkpoint, "write_whole", slow_write)
    saver = Saver(tmp_path)
    assert saver.due()
    saver.save(sample(1))
    now += 0.5 * checkpoint.TRAINING_PER_SAVE - 0.01
    assert not saver.due()
    now += 0.02
    assert saver.due()


@pytest.mark.parametrize("call", ["fsync", "replace"])
def test_a_failed_write_leaves_the_file_of_before(tmp_path, monkeypatch, call):
    path = tmp_path / "file"
    write_whole(path, b"before")

    def full(*_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, call, full)
    with pytest.raises(SaveError) as failed:
        write_whole(path, b"after")
    assert (failed.value.errno, failed.value.filename) == (errno.ENOSPC, str(path))
    assert path.read_bytes() == b"before"
    assert list(tmp_path.iterdir()) == [path]


def test_a_file_is_on_the_disk_before_it_has_its_name(tmp_path, monkeypatch):
    done = []
    fsync, replace = os.fsync, os.replace
    monkeypatch.setattr(os, "fsync", lambda file: (done.append("fsync"), fsync(file)))
    monkeypatch.setattr(os, "replace", lambda *names: (done.append("replace"), replace(*names)))
    write_whole(tmp_path / "file", b"content")
    assert done == ["fsync", "replace", "fsync"]


def test_stale_parts_are_swept(tmp_path):
    (tmp_path / "metrics.nc.part").write_bytes(b"CDF")
    (tmp_path / "metrics.nc").write_bytes(b"CDF")
    sweep_parts(tmp_path, ["metrics.nc"])
    assert [path.name for path in tmp_path.iterdir()] == ["metrics.nc"]
