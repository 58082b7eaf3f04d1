"""Signals that ask to stop are noted; only who asks twice is obeyed at once."""

import os
import signal
import subprocess
import sys
import time

import pytest

from experiments.system.interrupts import SIGNALS, listening

WORK = """
import sys, time
from experiments.system.interrupts import listening
with listening() as stop:
    print("on", flush=True)
    while not stop():
        time.sleep(0.01)
    time.sleep(0.5)  # saving
print(stop())
"""


@pytest.mark.parametrize("number", SIGNALS)
def test_a_signal_is_noted(number):
    before = signal.getsignal(number)
    with listening() as stop:
        assert stop() is None
        os.kill(os.getpid(), number)
        deadline = time.monotonic() + 10
        while stop() is None and time.monotonic() < deadline:
            time.sleep(0.01)
        assert stop() == number
    assert signal.getsignal(number) is before


@pytest.mark.parametrize(
    ("numbers", "status"),
    [
        ((signal.SIGTERM, signal.SIGHUP), 0),
        ((signal.SIGXCPU, signal.SIGXCPU, signal.SIGXCPU), 0),
        ((signal.SIGUSR1, signal.SIGTERM), 143),
        ((signal.SIGHUP, signal.SIGINT), 130),
    ],
)
def test_a_batch_system_may_repeat_itself(numbers, status):
    command = [sys.executable, "-c", WORK]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "on\n"
        for number in numbers:
            process.send_signal(number)
            time.sleep(0.1)
        assert process.wait() == status
        assert process.stdout.read() == ("" if status else f"{int(numbers[0])}\n")


def test_under_nohup_a_lost_terminal_is_nothing():
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with listening() as stop:
            os.kill(os.getpid(), signal.SIGHUP)
            time.sleep(0.1)
            assert stop() is None
        assert signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGHUP, before)
