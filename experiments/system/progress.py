"""Progress of a study: a bar on a terminal, a line now and then elsewhere."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

from experiments.system.console import Console, make_console

SECONDS_BETWEEN_LINES = 10

Show = Callable[[str, int], None]
"""Called with the network under way and the steps of all networks done so far."""


def announce(text: str) -> None:
    """Prints on stderr what is being measured."""
    make_console(stderr=True).print(f"{text} ..", style="dim")


@contextmanager
def progress(console: Console, total: int, done: int = 0) -> Iterator[Show]:
    """Shows how many of `total` steps are done, `done` of them before, and the time for the others.

    A network is compiled when it is first shown: that is said, and no part of the estimate.
    """
    left = _Left(total)
    if not console.is_terminal:
        yield _lines(console, total, left)
        return
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        TextColumn("{task.completed:.0f}/{task.total:.0f} steps"),
        TimeElapsedColumn(),
        TextColumn("{task.fields[left]}"),
    )
    with Progress(*columns, console=console) as bar:
        task = bar.add_task("", total=total, completed=done, left="")

        def show(network: str, done: int) -> None:
            bar.update(task, description=network, completed=done, left=left.say(network, done))

        yield show


class _Left:
    """Seconds left, by the time of steps; each network's first window compiles, and is left out."""

    def __init__(self, total: int) -> None:
        self._total = total
        self._network = ""
        self._last: tuple[int, float] | None = None
        self._steps, self._seconds = 0, 0.0

    def say(self, network: str, done: int) -> str:
        now = time.monotonic()
        if network != self._network:
            self._network, self._last = network, None
            return "compiling .."
        if self._last is not None:
            self._steps += done - self._last[0]
            self._seconds += now - self._last[1]
        self._last = done, now
        if not self._steps and done < self._total:
            return ""
        seconds = self._seconds / max(self._steps, 1) * (self._total - done)
        return f"{seconds:.0f} s left"


def _lines(console: Console, total: int, left: _Left) -> Show:
    last = time.monotonic()

    def show(network: str, done: int) -> None:
        nonlocal last
        estimate, now = left.say(network, done), time.monotonic()
        if estimate == "compiling ..":
            console.print(f"{network}: {estimate}", soft_wrap=True)
        elif estimate and (done == total or now - last >= SECONDS_BETWEEN_LINES):
            console.print(f"{network}: {done}/{total} steps, {estimate}", soft_wrap=True)
            last = now

    return show
