"""One process at a time in a study's folder.

The system's own lock on a file (flock) goes when its holder does, however that ends, so that no one
has to judge whether a holder is alive. What the file says is for people.
"""

import errno
import fcntl
import os
import re
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import NamedTuple

from experiments.system.files import SaveError, remove

LOCK = ".lock"

_SOMEONE = "another process"


class LockedError(RuntimeError):
    """A folder that cannot be held, as when another process does; the message is one line."""


class Held(NamedTuple):
    """A folder that no other process can hold."""

    dead: str | None
    """Who held it before and died without letting go, if so."""
    check: Callable[[], None]
    """Raises SaveError when someone has removed the lock: another process may hold the folder."""


def unlocked() -> Held:
    """Returns a folder that nobody holds, where there are no locks."""
    return Held(None, lambda: None)


@contextmanager
def hold(folder: Path) -> Iterator[Held]:
    """Holds `folder`, made if absent.

    Raises:
        LockedError: when another process holds it, naming that process, or it cannot be held.
    """
    made = not folder.exists()
    path = folder / LOCK
    try:
        folder.mkdir(parents=True, exist_ok=True)
        file = _open_locked(path)
    except OSError as error:
        if made:
            remove(folder)
        where = error.filename or folder
        raise LockedError(
            f"{where}: cannot be used ({error.strerror}). Choose another folder with --out."
        ) from error

    def check() -> None:
        if not _is_at(file, path):
            reason = "was removed; the same command goes on from the last checkpoint"
            raise SaveError(errno.ESTALE, reason, str(path))

    try:
        dead = _read(file)
        os.ftruncate(file, 0)
        os.pwrite(file, f"process {os.getpid()} on {socket.gethostname()}\n".encode(), 0)
        yield Held(dead, check)
    finally:
        if _is_at(file, path):
            remove(path)
        os.close(file)
        if made:
            remove(folder)  # unless something was put there


def holder(folder: Path) -> str | None:
    """Tells who holds `folder`, or None."""
    with suppress(OSError):
        file = os.open(folder / LOCK, os.O_RDONLY | os.O_NOFOLLOW)
        try:
            return None if _locked(file) else _read(file) or _SOMEONE
        finally:
            os.close(file)


def _open_locked(path: Path) -> int:
    while True:
        # Another's link would be written through.
        file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o644)
        try:
            if not _locked(file):
                raise LockedError(
                    f"{path.parent}: {_read(file) or _SOMEONE} is at work there. Wait for it, stop "
                    "it, or choose another folder with --out."
                )
            # The last holder may have removed the file between our opening and our locking it.
            if _is_at(file, path):
                if os.fstat(file).st_size and not _read(file):
                    raise LockedError(f"{path}: is not a study's. Choose another --out.")
                return file
        except OSError as error:
            if error.errno not in (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP):
                raise
            remove(path)
            os.close(file)
            raise LockedError(
                f"{path.parent}: its file system has no locks (flock: {error.strerror}). Choose a "
                "folder elsewhere with --out, or see yourself that one process at a time is at "
                "work there and give --no-lock."
            ) from error
        except LockedError:
            os.close(file)
            raise
        os.close(file)


def _is_at(file: int, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(file), os.lstat(path))
    except OSError:
        return False


def _locked(file: int) -> bool:
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _read(file: int) -> str | None:
    """Returns the process that the file names, if it is a lock of ours."""
    holder = os.pread(file, 200, 0).decode(errors="replace").strip()
    return holder if re.fullmatch(r"process \d+ on [\w.-]+", holder) else None
