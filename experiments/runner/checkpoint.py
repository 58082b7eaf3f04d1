"""A study half-way, in one file that is either right to the last bit or known to be wrong.

A checkpoint holds the state of the network under way, and the mark in a log behind which all that
is measured later will be written. The last two are kept: should one not be readable, the other is.
"""

import json
import time
import zlib
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
from flax.serialization import msgpack_restore, msgpack_serialize

from experiments.runner import measured
from experiments.runner.measured import LogError, Mark, Record
from experiments.system.files import DAMAGED, PART, remove, saving, set_aside, write_whole

FOLDER, LOG = "checkpoints", "measured.log"
KEPT = 2
# What saving may cost: a save waits until training has taken this many times as long.
TRAINING_PER_SAVE = 20

_NAME = "[0-9]" * 12 + ".ckpt"  # what else lies there is not ours
_MAGIC = b"jbn checkpoint 3\n"
_CRC_BYTES = 4
_START = len(_MAGIC) + _CRC_BYTES
_SIZE_BYTES = 8

Arrays = Mapping[str, np.ndarray]


class CheckpointError(RuntimeError):
    """A checkpoint that cannot be used; the message is one line."""


class Checkpoint(NamedTuple):
    """A state from which a study continues."""

    done: int
    """Steps made so far, of all networks together."""
    state: Arrays
    """Of the network under way, by name, every array with its runs first; empty between two."""
    mark: Sequence[int]
    """In the log: how much of it belongs to this, as a `Mark`; the saver sets it."""
    diverged: int
    """Runs whose loss was not finite so far."""
    environment: str
    """JSON of `environment()` where it was made."""
    belongs_to: Mapping[str, str]
    """The config, the data and what else it is good for alone, by name: a text or its hash."""


class Found(NamedTuple):
    """A checkpoint, and what had been measured when it was made."""

    checkpoint: Checkpoint
    records: Sequence[Record]


class Saver:
    """Saves checkpoints in `directory`, as often as is cheap, and records behind the `mark`."""

    def __init__(self, directory: Path, mark: Sequence[int] = Mark()) -> None:
        self._folder = directory / FOLDER
        self._mark, self._new = Mark(*mark), []
        self._next = 0.0

    def due(self) -> bool:
        """Tells whether training has gone on for long enough since the last save."""
        return time.monotonic() >= self._next

    def add(self, record: Record) -> None:
        """Keeps what was measured for the next save, which it belongs to."""
        self._new.append(measured.pack(record))

    def save(self, checkpoint: Checkpoint) -> None:
        """Writes the new records, then `checkpoint`, then lets go of all but the last two.

        Raises:
            SaveError: when it cannot be written; those of before are as they were.
        """
        begun = time.monotonic()
        with saving(self._folder):
            self._folder.mkdir(exist_ok=True)
        mark = measured.append(self._folder / LOG, self._mark, self._new)
        packed = _pack(checkpoint._replace(mark=[*mark]))
        write_whole(self._folder / f"{checkpoint.done:012}.ckpt", packed)
        self._mark, self._new = mark, []
        remove(*_paths(self._folder)[KEPT:])
        ended = time.monotonic()
        self._next = ended + TRAINING_PER_SAVE * (ended - begun)


def newest(directory: Path, belongs_to: Mapping[str, str], say: Callable[[str], None]) -> bytes:
    """Reads the last undamaged checkpoint of `directory`, for `unpack`; empty if there is none.

    A damaged one, or one whose part of the log is, is named to `say`, with what was found, and set
    aside.

    Raises:
        CheckpointError: when it is undamaged, and belongs to another study.
    """
    log = directory / FOLDER / LOG
    damaged = False
    for path in paths(directory):
        try:
            content = _read(path)
            loaded = _checked(content, path)
            records = measured.read(log, Mark(*loaded.mark))
        except (CheckpointError, LogError) as error:
            say(f"{error} Going back to the checkpoint before, or else to the beginning.")
            set_aside(path)
            damaged = True
            continue
        both = belongs_to.keys() | loaded.belongs_to.keys()
        if other := sorted(n for n in both if belongs_to.get(n) != loaded.belongs_to.get(n)):
            raise CheckpointError(
                f"{path}: was saved with another {' and another '.join(other)}. Remove it, or "
                "choose another folder with --out."
            )
        return len(content).to_bytes(_SIZE_BYTES, "big") + content + records
    if damaged:
        set_aside(log)
    return b""


def peek(directory: Path) -> Checkpoint | None:
    """Does what `newest` does, but reports and removes nothing."""
    for path in paths(directory):
        with suppress(CheckpointError):  # its owner may be at work
            return read(path)
    return None


def read(path: Path) -> Checkpoint:
    """Returns the checkpoint in the file at `path`.

    Raises:
        CheckpointError: when a single bit is not as it was written, or it cannot be read.
    """
    return _checked(_read(path), path)


def unpack(content: bytes) -> Found:
    """Returns the checkpoint and the records in `content`, from `newest`."""
    end = _SIZE_BYTES + int.from_bytes(content[:_SIZE_BYTES], "big")
    return Found(_unpack(content[_SIZE_BYTES:end]), measured.unpack(content[end:]))


def paths(directory: Path) -> list[Path]:
    """Returns the checkpoints of `directory`, newest first."""
    return _paths(directory / FOLDER)


def clear(directory: Path) -> None:
    """Removes all checkpoints of `directory`, and the folder if nothing else is there."""
    sweep(directory)
    folder = directory / FOLDER
    logs = (folder / LOG, folder / f"{LOG}{DAMAGED}")
    remove(*_paths(folder), *folder.glob(f"{_NAME}{DAMAGED}"), *logs, folder)


def sweep(directory: Path) -> None:
    """Removes what writers of checkpoints that were killed have left in `directory`."""
    remove(*(directory / FOLDER).glob(f"{_NAME}{PART}"))


def to_arrays(states: Any, runs: int) -> Arrays:
    """Returns the arrays of the first `runs` runs of `states`: others, copies, fill up devices."""
    return {name: np.asarray(leaf)[:runs] for name, leaf in _named(jax.device_get(states)).items()}


def from_arrays(arrays: Arrays, like: Any, runs: int) -> Any:
    """Returns the states in `arrays`, filled up to as many runs as `like` has.

    Args:
        arrays: From `to_arrays`.
        like: States or their `jax.ShapeDtypeStruct`s, from the program that is to go on.
        runs: How many of them are no copies.

    Raises:
        CheckpointError: when an array is missing, unknown, or of another shape or type.
    """
    expected = _named(like)
    if names := sorted(expected.keys() ^ arrays.keys()):
        raise CheckpointError(
            f"The checkpoint is another program's: {', '.join(names)} is only in one of the two."
        )
    filled = [_fill(name, arrays[name], leaf, runs) for name, leaf in expected.items()]
    return jax.tree.unflatten(jax.tree.structure(like), filled)


def _fill(name: str, array: np.ndarray, like: Any, runs: int) -> np.ndarray:
    needed = (runs, *like.shape[1:])
    if array.shape != needed or array.dtype != like.dtype:
        raise CheckpointError(
            f"The checkpoint is another program's: {name} is {array.dtype}{list(array.shape)}, "
            f"needed is {like.dtype}{list(needed)}."
        )
    return np.concatenate([array, np.repeat(array[-1:], like.shape[0] - runs, axis=0)])


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise CheckpointError(f"{path}: cannot be read ({error.strerror}).") from error


def _checked(content: bytes, path: Path) -> Checkpoint:
    if len(content) < _START or not content.startswith(_MAGIC):
        raise CheckpointError(
            f"{path}: damaged, or of another version: {len(content)} bytes that begin otherwise."
        )
    crc = int.from_bytes(content[len(_MAGIC) : _START], "big")
    if crc != zlib.crc32(memoryview(content)[_START:]):
        raise CheckpointError(f"{path}: damaged: its checksum is not that of its content.")
    try:
        return _sound(_unpack(content))
    except Exception as error:  # with a right checksum: it is no file of ours
        raise CheckpointError(f"{path}: damaged: its content is no checkpoint's.") from error


def _sound(loaded: Checkpoint) -> Checkpoint:
    json.loads(loaded.environment)
    numbers = (loaded.done, loaded.diverged, *Mark(*loaded.mark))
    if (
        not all(type(number) is int and number >= 0 for number in numbers)
        or not all(isinstance(array, np.ndarray) for array in loaded.state.values())
        or not all(isinstance(text, str) for text in loaded.belongs_to.values())
    ):
        raise TypeError
    return loaded


def _unpack(content: bytes) -> Checkpoint:
    fields: Any = msgpack_restore(content[_START:])
    return Checkpoint(**fields)


def _named(tree: Any) -> dict[str, Any]:
    leaves, _ = jax.tree_util.tree_flatten_with_path(tree)
    return {jax.tree_util.keystr(path): leaf for path, leaf in leaves}


def _pack(checkpoint: Checkpoint) -> bytes:
    content = msgpack_serialize(checkpoint._asdict())
    return _MAGIC + zlib.crc32(content).to_bytes(_CRC_BYTES, "big") + content


def _paths(folder: Path) -> list[Path]:
    return sorted(folder.glob(_NAME), reverse=True)
