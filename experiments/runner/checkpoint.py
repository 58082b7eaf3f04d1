"""A study half-way, in one file that is either right to the last bit or known to be wrong.

A checkpoint holds the state of the network under way and everything measured so far, of all
networks. The last two are kept: should one not be readable, the other is.
"""

import time
import zlib
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
from flax.serialization import msgpack_restore, msgpack_serialize

from experiments.system.files import sweep_parts, write_whole

FOLDER = "checkpoints"
KEPT = 2
# What saving may cost: a save waits until training has taken this many times as long.
TRAINING_PER_SAVE = 20

_MAGIC = b"jbn checkpoint 1\n"
_CRC_BYTES = 4

Arrays = Mapping[str, np.ndarray]


class CheckpointError(RuntimeError):
    """A checkpoint that cannot be used; the message is one line."""


class Checkpoint(NamedTuple):
    """What a study continues from."""

    done: int
    """Steps made so far, of all networks together."""
    state: Arrays
    """Of the network under way, by name, every array with its runs first; empty between two."""
    measured: Arrays
    """The variables of the study's dataset."""
    environment: str
    """JSON of `environment()` where it was made."""


class Saver:
    """Saves checkpoints in `directory`, as often as is cheap."""

    def __init__(self, directory: Path) -> None:
        self._folder = directory / FOLDER
        self._next = 0.0

    def due(self) -> bool:
        """Whether training has gone on for long enough since the last save."""
        return time.monotonic() >= self._next

    def save(self, checkpoint: Checkpoint) -> None:
        """Writes `checkpoint`, then lets go of all but the last two.

        Raises:
            SaveError: when it cannot be written; those of before are as they were.
        """
        begun = time.monotonic()
        self._folder.mkdir(exist_ok=True)
        write_whole(self._folder / f"{checkpoint.done:012}.ckpt", _pack(checkpoint))
        for path in _paths(self._folder)[KEPT:]:
            path.unlink()
        ended = time.monotonic()
        self._next = ended + TRAINING_PER_SAVE * (ended - begun)


def newest(directory: Path, say: Callable[[str], None]) -> Checkpoint | None:
    """The last checkpoint of `directory` that is undamaged, None if there is none.

    A damaged one is named to `say`, with what was found, and removed.
    """
    for path in paths(directory):
        try:
            return read(path)
        except CheckpointError as error:
            say(f"{error} Going back to the one before it, or else to the beginning.")
            path.unlink()
    return None


def peek(directory: Path) -> Checkpoint | None:
    """As `newest`, for who only looks: says and removes nothing."""
    for path in paths(directory):
        with suppress(CheckpointError, FileNotFoundError):  # its owner may be at work
            return read(path)
    return None


def read(path: Path) -> Checkpoint:
    """The checkpoint in the file at `path`.

    Raises:
        CheckpointError: when a single bit is not as it was written.
    """
    content = path.read_bytes()
    start = len(_MAGIC) + _CRC_BYTES
    if len(content) < start or not content.startswith(_MAGIC):
        raise CheckpointError(f"{path}: damaged: {len(content)} bytes that begin otherwise.")
    crc = int.from_bytes(content[len(_MAGIC) : start], "big")
    if crc != zlib.crc32(memoryview(content)[start:]):
        raise CheckpointError(f"{path}: damaged: its checksum is not that of its content.")
    fields: Any = msgpack_restore(content[start:])
    return Checkpoint(**fields)


def paths(directory: Path) -> list[Path]:
    """The checkpoints of `directory`, newest first."""
    return _paths(directory / FOLDER)


def clear(directory: Path) -> None:
    """Removes all checkpoints of `directory`."""
    folder = directory / FOLDER
    if folder.is_dir():
        sweep_parts(folder)
        for path in _paths(folder):
            path.unlink()
        folder.rmdir()


def to_arrays(states: Any, runs: int) -> Arrays:
    """The first `runs` runs of `states`, array by array: those that fill up devices are copies."""
    return {name: np.asarray(leaf)[:runs] for name, leaf in _named(jax.device_get(states)).items()}


def from_arrays(arrays: Arrays, like: Any, runs: int) -> Any:
    """The states in `arrays`, filled up to as many runs as `like` has.

    Args:
        arrays: From `to_arrays`.
        like: States or their `jax.ShapeDtypeStruct`s, from the program that is to go on.
        runs: How many of them are no copies.

    Raises:
        CheckpointError: when an array is missing, unknown, or of another shape or type.
    """
    expected = _named(like)
    if odd := sorted(expected.keys() ^ arrays.keys()):
        raise CheckpointError(
            f"The checkpoint is another program's: {', '.join(odd)} is only in one of the two."
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


def _named(tree: Any) -> dict[str, Any]:
    leaves, _ = jax.tree_util.tree_flatten_with_path(tree)
    return {jax.tree_util.keystr(path): leaf for path, leaf in leaves}


def _pack(checkpoint: Checkpoint) -> bytes:
    content = msgpack_serialize(checkpoint._asdict())
    return _MAGIC + zlib.crc32(content).to_bytes(_CRC_BYTES, "big") + content


def _paths(folder: Path) -> list[Path]:
    return sorted(folder.glob("*.ckpt"), reverse=True)
