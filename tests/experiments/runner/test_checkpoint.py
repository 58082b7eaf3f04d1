"""A checkpoint comes back as it was, or is known to be damaged, or is refused."""

import errno
import os
import zlib

import chex
import jax
import numpy as np
import pytest
from flax.serialization import msgpack_serialize

from experiments.runner import checkpoint
from experiments.runner.checkpoint import Checkpoint, CheckpointError, Saver, from_arrays, to_arrays
from experiments.system.files import SaveError, sweep_parts, write_whole

RUNS = 3
MINE = {"config": "{}", "data": "1f"}
STATES = {
    "weights": np.arange(8, dtype=np.float32).reshape(4, 2),
    "step": np.array([5, 5, 5, 5], np.int32),
}


def sample(done: int) -> Checkpoint:
    measured = {"loss": np.array([np.nan, 0.5], np.float32)}
    return Checkpoint(done, to_arrays(STATES, RUNS), measured, "{}", MINE)


@pytest.fixture
def saved(tmp_path):
    """The file of a checkpoint."""
    Saver(tmp_path).save(sample(5))
    (path,) = checkpoint.paths(tmp_path)
    return path


def test_what_was_saved_comes_back(saved):
    back = checkpoint.read(saved)
    assert (back.done, back.environment) == (5, "{}")
    chex.assert_trees_all_equal(back.measured, sample(5).measured)
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
    assert checkpoint.unpack(checkpoint.newest(tmp_path, MINE, said.append)).done == 1
    assert len(said) == 1
    assert str(newest) in said[0]
    assert not newest.exists()
    saver.save(sample(2))
    assert checkpoint.unpack(checkpoint.newest(tmp_path, MINE, pytest.fail)).done == 2
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
        lambda fields: fields | {"measured": {"loss": 1}},
        lambda fields: fields | {"environment": "{"},
        lambda fields: fields | {"environment": 1},
        lambda fields: fields | {"belongs_to": 1},
        lambda fields: fields | {"belongs_to": {"config": 1}},
    ],
)
def test_what_has_a_right_checksum_and_is_not_ours_is_damaged(saved, change):
    content = msgpack_serialize(change(sample(5)._asdict()))
    packed = b"jbn checkpoint 2\n" + zlib.crc32(content).to_bytes(4, "big") + content
    saved.write_bytes(packed)
    with pytest.raises(CheckpointError, match="its content is no checkpoint's"):
        checkpoint.read(saved)


def test_one_of_another_version_is_said_to_be(saved):
    saved.write_bytes(saved.read_bytes().replace(b"checkpoint 2", b"checkpoint 3", 1))
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
