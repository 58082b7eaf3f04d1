"""Files that are there whole or not at all, whatever happens while they are written."""

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

PART = ".part"


class SaveError(OSError):
    """A file that could not be written, by path and errno; the one of before is as it was."""


def write_whole(path: Path, content: bytes | memoryview) -> None:
    """Writes `content` beside `path`, waits until the disk has it, and renames it to `path`.

    Raises:
        SaveError: when the disk is full or the folder is gone, say.
    """
    aside = path.with_name(path.name + PART)
    with saving(path):
        try:
            with open(aside, "wb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
            os.replace(aside, path)
            _sync_names(path.parent)
        except OSError:
            with suppress(OSError):
                aside.unlink(missing_ok=True)
            raise


@contextmanager
def saving(path: Path) -> Iterator[None]:
    """An OSError within it becomes a SaveError of `path`."""
    try:
        yield
    except OSError as error:
        raise SaveError(error.errno, error.strerror or str(error), str(path)) from error


def sweep_parts(folder: Path) -> None:
    """Removes what writers that were killed have left in `folder`."""
    for path in folder.glob(f"*{PART}"):
        path.unlink(missing_ok=True)


def _sync_names(folder: Path) -> None:
    # A rename is on the disk when its folder is.
    folder_file = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(folder_file)
    finally:
        os.close(folder_file)
