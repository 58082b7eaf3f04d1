"""One process at a time in a study's folder.

The system's own lock on a file (flock) goes when its holder does, however that ends, so that no one
has to judge whether a holder is alive. What the file says is for people.
"""

import fcntl
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

LOCK = ".lock"

_SOMEONE = "another process"


class LockedError(RuntimeError):
    """Another process is at work in the folder; the message is one line."""


@contextmanager
def hold(folder: Path) -> Iterator[str | None]:
    """Holds `folder`, made if absent; yields who held it and died without letting go, if so.

    Raises:
        LockedError: when another process holds it, naming that process.
        OSError: when nothing can be written there.
    """
    made = not folder.exists()
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / LOCK
    file = _open_locked(path)
    try:
        dead = _read(file)
        os.ftruncate(file, 0)
        os.pwrite(file, f"process {os.getpid()} on {socket.gethostname()}\n".encode(), 0)
        yield dead
    finally:
        path.unlink(missing_ok=True)
        os.close(file)
        if made:
            with suppress(OSError):  # something was put there
                folder.rmdir()


def holder(folder: Path) -> str | None:
    """Who holds `folder`, or None."""
    try:
        file = os.open(folder / LOCK, os.O_RDONLY)
    except OSError:
        return None
    try:
        return None if _locked(file) else _read(file) or _SOMEONE
    finally:
        os.close(file)


def _open_locked(path: Path) -> int:
    while True:
        file = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
        if not _locked(file):
            name = _read(file) or _SOMEONE
            os.close(file)
            raise LockedError(
                f"{path.parent}: {name} is at work there. Wait for it, stop it, or choose another "
                "folder with --out."
            )
        # The last holder may have removed the file between our opening and our locking it.
        with suppress(FileNotFoundError):
            if os.path.samestat(os.fstat(file), os.stat(path)):
                return file
        os.close(file)


def _locked(file: int) -> bool:
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _read(file: int) -> str | None:
    return os.pread(file, 200, 0).decode(errors="replace").strip() or None
