"""Log of what a study under way has measured: only ever added to, each record with its checksum.

What a checkpoint holds of it is a `Mark`: how long the log was, and the checksum of all until then.
What comes after the mark was written by somebody who was killed before the next checkpoint was; the
next records take its place.
"""

import os
import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from flax.serialization import msgpack_restore, msgpack_serialize

from experiments.system.files import saving

_MAGIC = b"jbn measured 1\n"
_LENGTH, _CRC = 8, 4  # bytes


class LogError(ValueError):
    """A log that is not as it was written; the message is one line."""


class Mark(NamedTuple):
    """The part of a log that belongs to a checkpoint."""

    length: int = 0
    """Bytes."""
    crc: int = 0
    """Of those bytes."""


class Record(NamedTuple):
    """Measures of all runs of one of the study's norms, at one evaluation."""

    norm: str
    step: int
    measures: Mapping[str, np.ndarray]


def pack(record: Record) -> bytes:
    """Returns a record as the log holds it: length of its content, its checksum, the content."""
    content = msgpack_serialize(record._asdict())
    crc = zlib.crc32(content)
    return len(content).to_bytes(_LENGTH, "big") + crc.to_bytes(_CRC, "big") + content


def append(path: Path, mark: Mark, packed: Sequence[bytes]) -> Mark:
    """Writes records behind `mark`, in the place of whatever is there, and waits for the disk.

    Returns:
        The mark behind them.

    Raises:
        SaveError: when they cannot be written; what lies before `mark` is as it was.
    """
    content = b"".join([b"" if mark.length else _MAGIC, *packed])
    with saving(path):
        # Through another's link there would be written elsewhere.
        number = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o666)
        with open(number, "r+b") as file:
            file.seek(mark.length)
            file.truncate()
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
    return Mark(mark.length + len(content), zlib.crc32(content, mark.crc))


def read(path: Path, mark: Mark) -> bytes:
    """Reads the log up to `mark`, for `unpack`.

    Raises:
        LogError: when that is not what was written.
    """
    try:
        with path.open("rb") as file:
            content = file.read(mark.length)
    except OSError as error:
        raise LogError(f"{path}: cannot be read ({error.strerror}).") from error
    if len(content) < mark.length:
        raise LogError(f"{path}: damaged: {len(content)} bytes of {mark.length}.")
    if zlib.crc32(content) != mark.crc:
        raise LogError(f"{path}: damaged: {_first_damaged(content)} is not as it was written.")
    return content


def unpack(content: bytes) -> list[Record]:
    """Returns the records in `content`, from `read`."""
    return [Record(**_restored(part)) for part in _parts(content)]


def _restored(part: bytes) -> Any:
    return msgpack_restore(part[_LENGTH + _CRC :])


def _parts(content: bytes) -> list[bytes]:
    """Splits a log into records with length and checksum; the last may be cut off."""
    parts, start = [], len(_MAGIC)
    while start < len(content):
        length = int.from_bytes(content[start : start + _LENGTH], "big")
        end = start + _LENGTH + _CRC + length
        parts.append(content[start:end])
        start = end
    return parts


def _first_damaged(content: bytes) -> str:
    parts = _parts(content)
    for number, part in enumerate(parts, start=1):
        crc = int.from_bytes(part[_LENGTH : _LENGTH + _CRC], "big")
        if crc != zlib.crc32(part[_LENGTH + _CRC :]):
            return f"record {number} of {len(parts)}"
    return "its beginning, or another study's,"
