"""Ctrl-C and SIGTERM as a question that a long computation asks when it can stop."""

import os
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

SIGNALS = (signal.SIGINT, signal.SIGTERM)

Stop = Callable[[], int | None]
"""The signal that has asked to stop, or None."""


class Interrupted(Exception):
    """Stopped by a signal, at a point from which the same command goes on."""

    def __init__(self, signal_number: int, message: str) -> None:
        super().__init__(message)
        self.exit_status = 128 + signal_number  # what a shell calls it


def never() -> None:
    """A `Stop` that does not come."""


@contextmanager
def listening() -> Iterator[Stop]:
    """Within it, the first SIGINT or SIGTERM is only noted; the second ends the process at once.

    In a thread other than the main one signals cannot be heard, and nothing changes.
    """
    if threading.current_thread() is not threading.main_thread():
        yield never
        return
    heard: list[int] = []
    ear, mouth = os.pipe()
    os.set_blocking(mouth, False)

    def listen() -> None:
        # A thread of its own: Python's handlers wait until a compilation or a window of steps is
        # over, and who asks twice will not.
        while number := os.read(ear, 1)[0]:
            if number in SIGNALS:
                heard.append(number)
            if len(heard) > 1:
                os._exit(128 + number)

    listener = threading.Thread(target=listen, daemon=True)
    before: dict[signal.Signals, Any] = {
        number: signal.signal(number, lambda *_: None) for number in SIGNALS
    }
    woken_before = signal.set_wakeup_fd(mouth, warn_on_full_buffer=False)
    listener.start()
    try:
        yield lambda: heard[0] if heard else None
    finally:
        signal.set_wakeup_fd(woken_before)
        for number, handler in before.items():
            signal.signal(number, handler)
        os.write(mouth, bytes(1))
        listener.join()
        os.close(mouth)
        os.close(ear)
