"""The command line: `python -m experiments run | report | list | papers | atlas | ..`.

Nothing that imports JAX is imported here at the top: how many devices a CPU has is settled first.
"""

from experiments.system.interrupts import end_at_ctrl_c
from experiments.system.packages import check_packages

if __name__ == "__main__":
    end_at_ctrl_c()  # before what takes long to import
    check_packages()

import sys
from collections.abc import Callable, Sequence
from typing import Literal

import tyro

from experiments.commands import PROGRAM
from experiments.commands import atlas as atlas_command
from experiments.commands import bench as bench_command
from experiments.commands import list as list_command
from experiments.commands import papers as papers_command
from experiments.commands import report as report_command
from experiments.commands import run as run_command
from experiments.commands import walkthrough as walkthrough_command
from experiments.system.console import settle_output
from experiments.system.devices import keep_freed_memory, use_all_cores


def main(arguments: Sequence[str] | None = None) -> None:
    """Runs one command; exits with status 2, after one line, for input that cannot be used."""
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    command = tyro.cli(_choose, prog=PROGRAM, args=arguments[:1])
    if command is not bench_command.main:  # a benchmark has the devices that a user has
        use_all_cores()
    command(arguments[1:])


def _choose(
    command: tyro.conf.Positional[
        Literal["run", "report", "list", "walkthrough", "papers", "atlas", "bench"]
    ],
) -> Callable[[list[str]], None]:
    """Train networks with and without batch norm, and say with numbers what it did.

    Exits with 0 when done, 1 after a failure (the disk is full, say), 2 for input that cannot be
    used, 128 and the signal's number when stopped by one: 130 by Ctrl-C, 143 by SIGTERM.

    Args:
        command: Which; each has its own --help.

            - run CONFIG --out DIR: train, measure, report; or go on.
            - report DIR [DIR ...]: write a report again, or compare.
            - list DIR: the studies there, and how far they are.
            - walkthrough: batch norm by hand, on a small table.
            - papers [NAME ...]: what papers claim, measured.
            - atlas --out DIR: when batch norm helps, networks at 1080 settings.
            - bench NAME: jbn beside other libraries.
    """
    return {
        "run": run_command.main,
        "report": report_command.main,
        "list": list_command.main,
        "walkthrough": walkthrough_command.main,
        "papers": papers_command.main,
        "atlas": atlas_command.main,
        "bench": bench_command.main,
    }[command]


if __name__ == "__main__":
    settle_output()
    if sys.argv[1:2] in (["run"], ["bench"]):
        keep_freed_memory(one_arena=sys.argv[1] == "bench" and sys.argv[2:3] != ["train"])
    main()
