"""Progress of a study: a bar on a terminal, a line now and then elsewhere."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from experiments.system.console import Console, make_console

SECONDS_BETWEEN_LINES = 10

Show = Callable[[str, int], None]
"""Called with the network under way and the steps of all networks done so far."""


def announce(text: str) -> None:
    """Prints on stderr what is being measured."""
    make_console(stderr=True).print(f"{text} ..", style="dim")


@contextmanager
def progress(console: Console, total: int, done: int = 0) -> Iterator[Show]:
    """Shows how many of `total` steps are done, `done` of them before."""
    if not console.is_terminal:
        yield _lines(console, total, done)
        return
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        TextColumn("{task.completed:.0f}/{task.total:.0f} steps"),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=console) as bar:
        task = bar.add_task("", total=total, completed=done)
        yield lambda network, done: bar.update(task, description=network, completed=done)


def _lines(console: Console, total: int, before: int) -> Show:
    console.print("compiling ..")
    begun, last = None, 0.0  # compiling is no measure of what is left

    def show(network: str, done: int) -> None:
        nonlocal begun, last
        now = time.monotonic()
        if done <= before:
            return
        if begun is None:
            begun, last = (now, done), now
        elif done == total or now - last >= SECONDS_BETWEEN_LINES:
            left = (now - begun[0]) / max(done - begun[1], 1) * (total - done)
            console.print(f"{network}: {done}/{total} steps, {left:.0f} s left", soft_wrap=True)
            last = now

    return show
