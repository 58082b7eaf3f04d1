"""`report DIR [DIR ...]`: what finished studies show, one by one or side by side."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import tyro

from experiments.commands import BAD_INPUT, PROGRAM, ending
from experiments.system.console import Console, make_console


def main(arguments: list[str]) -> None:
    """Carries out the command that `arguments` give."""

    def report(
        directories: Annotated[
            tuple[Path, ...],
            tyro.conf.Positional,
            tyro.conf.arg(metavar="DIR [DIR ...]", help_behavior_hint="(required)"),
        ],
        out: Path = Path("comparison.html"),
    ):
        """Write the report of a finished study again, or one page that compares several.

        Args:
            directories: The folder that `run` wrote to; several for a comparison.
            out: The page of a comparison.
        """
        with ending(BAD_INPUT, ValueError, OSError):
            if not directories:
                raise ValueError("Give a folder that `run` wrote to, or several to compare.")
            if len(directories) == 1:
                return write_up(directories[0], make_console(), again=True)
            compare(directories, out, make_console())

    tyro.cli(report, prog=f"{PROGRAM} report", args=arguments)


def write_up(directory: Path, console: Console, *, again: bool = False) -> None:
    """Writes the report of the study in `directory`, and prints its table.

    Without `again` a report that is there as it was written stays, and there is no table.
    """
    from experiments.runner.folder import PAGE, SUMMARY
    from experiments.system import checksums

    names = checksums.names(directory)
    if again or PAGE not in names or not all(checksums.is_right(directory, n) for n in names):
        from experiments.report.write import print_table, write_report

        write_report(directory)
        print_table(json.loads((directory / SUMMARY).read_text(encoding="utf-8")), console)
    print_path("Report", directory / PAGE, console)


def compare(directories: Sequence[Path], out: Path, console: Console) -> None:
    """Writes the page `out` that holds the studies in `directories` against each other."""
    from experiments.report.comparison import write_comparison

    print_path("Comparison", write_comparison(directories, out), console)


def print_path(label: str, page: Path, console: Console) -> None:
    console.print(f"{label}: {page}", soft_wrap=True)
