"""Output goes wherever it can, and its end is not the program's."""

import io
import os
import subprocess
import sys
from pathlib import Path

import pytest

from experiments.system.console import make_console, printable

ROOT = Path(__file__).parents[3]

TALK = """
import sys
from experiments.system.console import make_console, settle_output
settle_output()
console = make_console()
for i in range(2000):
    console.print(f"{i} \\u2212 caf\\u00e9 \\U0001f600", soft_wrap=True)
print("done", flush=True)
print("still here", file=sys.stderr)
sys.exit(3)
"""


def talk(redirected: str, **environment: str) -> subprocess.CompletedProcess[bytes]:
    """What a program that prints 2000 lines says, with a shell's redirection."""
    return subprocess.run(
        ["bash", "-c", f'"$0" -c "$1" {redirected}; exit ${{PIPESTATUS[0]}}', sys.executable, TALK],
        env=os.environ | environment,
        cwd=ROOT,
        capture_output=True,
    )


@pytest.mark.parametrize(
    "redirected",
    ["| head -1 >&2", "> /dev/full", ">&-", "<&- >&- ", "| true", "> /dev/full 2>&-", "2>&-"],
)
def test_a_stream_that_ends_is_no_end_of_the_program(redirected):
    done = talk(redirected)
    assert done.returncode == 3, done.stderr
    assert (b"still here" in done.stderr) == ("2>&-" not in redirected)
    assert b"Traceback" not in done.stderr
    assert b"Exception" not in done.stderr


@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "cp1252", "utf-8"])
def test_what_an_encoding_does_not_have_is_an_escape(encoding):
    done = talk("", PYTHONIOENCODING=encoding)
    assert done.returncode == 3, done.stderr
    first = "0 − café \U0001f600".encode(encoding, "backslashreplace")
    assert done.stdout.splitlines()[0] == first
    assert done.stdout.splitlines()[-1] == b"done"


def test_a_closed_stream_is_not_taken_for_a_file(tmp_path):
    """The next file that is opened would have its number, and what is printed in it."""
    code = TALK.replace("settle_output()\n", "settle_output()\nfile = open('metrics', 'w')\n")
    subprocess.run(
        ["bash", "-c", '"$0" -c "$1" >&-', sys.executable, code],
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        cwd=tmp_path,
        check=False,
    )
    assert (tmp_path / "metrics").read_text() == ""


@pytest.mark.parametrize("text", [":star:", "no:100:such.py", "node7:1234: x", "[bold]x[/bold]"])
def test_text_is_shown_as_it_is(text):
    file = io.StringIO()
    make_console(file=file, force_terminal=True, width=80).print(text)
    assert file.getvalue() == f"{text}\n"


def test_nothing_in_a_text_moves_the_cursor():
    file = io.StringIO()
    make_console(file=file, width=80).print("a\x1b[2Jb\x07\r\x9b1m\n\u202ec")
    assert file.getvalue() == "a\\x1b[2Jb\\x07\\r\\x9b1m\n\\u202ec\n"
    assert printable("größe, µ, ±, 大") == "größe, µ, ±, 大"


def test_no_module_makes_a_console_of_its_own():
    for path in (ROOT / "experiments").rglob("*.py"):
        if path.name != "console.py":
            text = path.read_text(encoding="utf-8")
            assert " Console(" not in text, path
            assert "=Console(" not in text, path
            assert "markup=" not in text, path


@pytest.mark.parametrize("count", [50, 150, 400, 800])
def test_ctrl_c_while_it_imports_ends_with_a_line(count):
    code = f"""
import itertools, os, runpy, sys
count = itertools.count()
def interrupt(event, _):
    if event == "import" and next(count) == {count}:
        os.kill(os.getpid(), 2)
sys.addaudithook(interrupt)
runpy.run_module("experiments", None, "__main__")
"""
    command = [sys.executable, "-c", code, "list", "/proc/self/task"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert (done.returncode, done.stdout, done.stderr.strip()) == (130, "", "Stopped.")
