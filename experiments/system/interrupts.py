"""Ctrl-C, SIGTERM and their kin as a question that a long computation asks when it can stop."""

import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any

# A batch system sends one of the latter before its time limit, and may send it again and again.
_SECOND = (signal.SIGINT, signal.SIGTERM)
SIGNALS = (*_SECOND, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2, signal.SIGXCPU)

Stop = Callable[[], int | None]
"""The signal that has asked to stop, or None."""


class Interrupted(Exception):
    """Stopped by a signal, at a point from which the same command goes on."""

    def __init__(self, signal_number: int, message: str) -> None:
        super().__init__(message)
        self.exit_status = 128 + signal_number  # what a shell calls it


def never() -> None:
    """Returns a `Stop` that does not come."""


def end_at_ctrl_c() -> None:
    """Has SIGINT end this program at once, with a line and no traceback, even while it imports."""

    def end(number: int, _: Any) -> None:
        with suppress(Exception):
            sys.stdout.flush()
        with suppress(OSError):
            os.write(2, b"\nStopped.\n")
        os._exit(128 + number)

    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, end)


@contextmanager
def listening() -> Iterator[Stop]:
    """Only notes the first of SIGNALS within it; a second Ctrl-C or SIGTERM ends at once.

    A SIGHUP that is ignored, as under nohup, stays so. In a thread other than the main one signals
    cannot be heard, and nothing changes.
    """
    if threading.current_thread() is not threading.main_thread():
        yield never
        return
    heard: list[int] = []
    reader, writer = os.pipe()
    os.set_blocking(writer, False)

    def listen() -> None:
        # A thread of its own: Python's handlers wait until a compilation or a window of steps is
        # over, and who asks twice will not.
        while number := os.read(reader, 1)[0]:
            if heard and number in _SECOND:
                os._exit(128 + number)
            if number in SIGNALS:
                heard.append(number)

    listener = threading.Thread(target=listen, daemon=True)
    before: dict[signal.Signals, Any] = {
        number: signal.signal(number, lambda *_: None)
        for number in SIGNALS
        if number in _SECOND or signal.getsignal(number) is not signal.SIG_IGN
    }
    woken_before = signal.set_wakeup_fd(writer, warn_on_full_buffer=False)
    listener.start()
    try:
        yield lambda: heard[0] if heard else None
    finally:
        signal.set_wakeup_fd(woken_before)
        for number, handler in before.items():
            signal.signal(number, handler)
        os.write(writer, bytes(1))
        listener.join()
        os.close(writer)
        os.close(reader)
