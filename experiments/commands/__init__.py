"""The commands of `python -m experiments`, one per file, and how all of them end."""

from collections.abc import Iterator
from contextlib import contextmanager

from experiments.system.console import make_console

PROGRAM = "python -m experiments"

FAILED = 1
BAD_INPUT = 2


@contextmanager
def ending(status: int, *errors: type[Exception]) -> Iterator[None]:
    """Ends the program on these errors with `status`, after one line and no traceback."""
    try:
        yield
    except errors as error:
        line = " ".join(str(error).split())
        make_console(stderr=True).print(line, soft_wrap=True)
        raise SystemExit(status) from error
