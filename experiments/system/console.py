"""The terminal: plain text for it, and output that never ends a program, wherever it goes."""

import io
import os
import sys
from typing import Any

import rich.console

Console = rich.console.Console


def make_console(**options: Any) -> Console:
    """Makes a console for text as it is: no markup, `:emoji:`, colours by guess or controls.

    Args:
        options: Of `rich.console.Console`: `stderr`, `quiet`, `file`, `width`.
    """
    return _Console(markup=False, emoji=False, highlight=False, **options)


def printable(text: str) -> str:
    """Writes what in `text` would move a cursor or colour a terminal as an escape."""
    return "".join(c if c.isprintable() or c == "\n" else ascii(c)[1:-1] for c in text)


def settle_output() -> None:
    """Makes stdout and stderr streams that take everything.

    What they cannot encode becomes an escape. What is closed, full, or gone is written to no more.
    """
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:  # or the next file that is opened would be what is printed to
            os.open(os.devnull, os.O_RDWR)
    for number, name in ((1, "stdout"), (2, "stderr")):
        stream = getattr(sys, name)
        raw = _Unbreakable(number, "w", closefd=False)
        text = io.TextIOWrapper(
            io.BufferedWriter(raw),
            encoding=stream.encoding if stream else "utf-8",
            errors="backslashreplace",
            line_buffering=number == 2 or raw.isatty(),
        )
        setattr(sys, name, text)


class _Console(Console):
    def print(self, *objects: Any, **options: Any) -> None:
        plain = (printable(one) if isinstance(one, str) else one for one in objects)
        super().print(*plain, **options)


class _Unbreakable(io.FileIO):
    def write(self, content: Any) -> int:
        try:
            return super().write(content) or len(content)
        except OSError:
            os.dup2(os.open(os.devnull, os.O_WRONLY), self.fileno())
            return len(content)
