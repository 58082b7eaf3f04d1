"""Files that are there whole or not at all, whatever happens while they are written."""

import errno
import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

PART = ".part"
DAMAGED = ".damaged"


class SaveError(OSError):
    """A file that could not be written, by path and errno; the one of before is as it was."""


class OutputError(ValueError):
    """Where nothing can be written, found out before the work; the message is one line."""


def write_whole(path: Path, content: bytes | memoryview) -> None:
    """Writes `content` beside `path`, waits until the disk has it, and renames it to `path`.

    Raises:
        SaveError: when the disk is full or the folder is gone, say.
    """
    aside = path.with_name(path.name + PART)
    with saving(path):
        aside.unlink(missing_ok=True)
        try:
            with open(aside, "xb") as file:  # another's link there would be written through
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
            os.replace(aside, path)
            _sync_names(path.parent)
        except OSError:
            remove(aside)
            raise


def check_writable(path: Path) -> None:
    """Checks that a file can be written there before its content is made; makes the folder.

    Raises:
        OutputError: when it cannot.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.exists() and not path.is_file():
            raise OSError(errno.EINVAL, "is no file")
        aside = path.with_name(path.name + PART)
        aside.unlink(missing_ok=True)
        aside.open("xb").close()
    except OSError as error:
        raise OutputError(f"{path}: cannot be written ({error.strerror}).") from error
    remove(aside)


@contextmanager
def saving(path: Path) -> Iterator[None]:
    """Makes an OSError within it a SaveError of `path`."""
    try:
        yield
    except OSError as error:
        raise SaveError(error.errno, error.strerror or str(error), str(path)) from error


def remove(*paths: Path) -> None:
    """Tidies away files and empty folders: what cannot be removed stays, and that is no error."""
    for path in paths:
        with suppress(OSError):
            path.rmdir() if path.is_dir() else path.unlink()


def set_aside(path: Path) -> None:
    """Renames a damaged file, over an earlier one, so that another can be written in its place."""
    with suppress(OSError):
        os.replace(path, path.with_name(path.name + DAMAGED))


def sweep_parts(folder: Path, names: Iterable[str]) -> None:
    """Removes what writers of `names` that were killed have left in `folder`."""
    remove(*(folder / f"{name}{PART}" for name in names))


def _sync_names(folder: Path) -> None:
    # A rename is on the disk when its folder is.
    folder_file = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(folder_file)
    finally:
        os.close(folder_file)
