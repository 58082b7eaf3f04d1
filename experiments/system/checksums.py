"""Checksums of a folder's files, in one of them.

`sha256sum --check SHA256SUMS` compares them too.
"""

import hashlib
from collections.abc import Iterable
from pathlib import Path

from experiments.system.files import write_whole

SUMS = "SHA256SUMS"


class DamagedError(ValueError):
    """A file that is not as it was written; the message is one line."""


def add(folder: Path, names: Iterable[str]) -> None:
    """Notes that the files of these names in `folder` are as they should be."""
    before = {name: digest for name, digest in _read(folder).items() if (folder / name).is_file()}
    sums = before | {name: _sum((folder / name).read_bytes()) for name in names}
    lines = [f"{digest}  {name}\n" for name, digest in sorted(sums.items())]
    write_whole(folder / SUMS, "".join(lines).encode())


def read(folder: Path, name: str) -> bytes:
    """Returns the content of a file in `folder`, if that is what was noted.

    Raises:
        DamagedError: when it is not, or nothing was noted, or it cannot be read.
    """
    path = folder / name
    try:
        content = path.read_bytes()
    except OSError as error:
        raise DamagedError(f"{path}: cannot be read ({error.strerror}).") from error
    noted = _read(folder).get(name)
    if noted is None:
        raise DamagedError(f"{path}: has no checksum in {SUMS}, so it may be half written.")
    if noted != _sum(content):
        raise DamagedError(f"{path}: damaged: its checksum is not the one in {SUMS}.")
    return content


def is_right(folder: Path, name: str) -> bool:
    """Tells whether the file of this name in `folder` is as it was noted."""
    try:
        read(folder, name)
    except DamagedError:
        return False
    return True


def names(folder: Path) -> list[str]:
    """Returns the files in `folder` of which a checksum was noted."""
    return [*_read(folder)]


def _sum(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def _read(folder: Path) -> dict[str, str]:
    try:
        text = (folder / SUMS).read_text(encoding="utf-8", errors="replace")
    except OSError:
        return {}
    # A line that is damaged names no file that is there, or another content: neither is right.
    lines = (line.partition("  ") for line in text.splitlines())
    return {name: digest for digest, _, name in lines}
