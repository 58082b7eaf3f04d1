"""Progress: what is said while a study trains, and the estimate without compilation."""

import io

import pytest
from rich.console import Console

from experiments.system import progress as module
from experiments.system.progress import progress


@pytest.fixture
def clock(monkeypatch):
    """A clock that a test sets."""

    class Clock:
        now = 0.0

        def monotonic(self):
            return self.now

    clock = Clock()
    monkeypatch.setattr(module, "time", clock)
    return clock


@pytest.mark.parametrize("terminal", [False, True])
def test_compiling_is_said_and_left_out_of_the_estimate(clock, terminal):
    said = io.StringIO()
    console = Console(file=said, force_terminal=terminal, width=120)
    # A network is shown before it trains; its first window takes 100 s, of which 88 to compile.
    with progress(console, 80) as show:
        for first, name in ((0, "none"), (40, "batch")):
            show(name, first)
            for window in (1, 2, 3, 4):
                clock.now += 100 if window == 1 else 12
                show(name, first + 10 * window)
    text = said.getvalue()
    if terminal:
        assert "0 s left" in text
        return
    assert text.splitlines() == [
        "none: compiling ..",
        "none: 20/80 steps, 72 s left",
        "none: 30/80 steps, 60 s left",
        "none: 40/80 steps, 48 s left",
        "batch: compiling ..",
        "batch: 50/80 steps, 36 s left",
        "batch: 60/80 steps, 24 s left",
        "batch: 70/80 steps, 12 s left",
        "batch: 80/80 steps, 0 s left",
    ]


def test_a_study_that_goes_on_takes_no_steps_for_its_own_that_were_made_before(clock):
    said = io.StringIO()
    with progress(Console(file=said, width=120), 100, done=60) as show:
        show("none", 60)
        for done in (70, 80, 90):
            clock.now += 20
            show("none", done)
    assert said.getvalue().splitlines()[1:] == [
        "none: 80/100 steps, 40 s left",
        "none: 90/100 steps, 20 s left",
    ]
