"""The command line: `python -m experiments run | report | walkthrough | bench`.

Nothing that imports JAX is imported here at the top: how many devices a CPU has is settled first.
"""

import json
import shlex
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import tyro
from rich.console import Console

from experiments.devices import keep_freed_memory, use_all_cores

if TYPE_CHECKING:
    from experiments.config import Study

PROGRAM = "python -m experiments"
BAD_INPUT = 2


def main(arguments: Sequence[str] | None = None) -> None:
    """Runs one command; exits with status 2, after one line, for input that cannot be used."""
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    command = tyro.cli(_choose, prog=PROGRAM, args=arguments[:1])
    if command is not _bench:  # a benchmark has the devices that a user has
        use_all_cores()
    command(arguments[1:])


def _choose(
    command: tyro.conf.Positional[Literal["run", "report", "walkthrough", "bench"]],
) -> Callable:
    """Train networks with and without batch norm, and say with numbers what it did.

    Args:
        command: run CONFIG --out DIR: train, measure and report. report DIR: write the report of
            a finished study again. walkthrough: batch norm by hand, on a small table. bench
            op | accuracy | memory | train: jbn beside other libraries. Each has its own --help.
    """
    return {"run": _run, "report": _report, "walkthrough": _walkthrough, "bench": _bench}[command]


@dataclass(kw_only=True)
class _Run:
    """Train what a config file describes, measure, and write a report.

    Every field of the study can be overridden by its name. CONFIG comes first, since its values are
    the defaults: `run CONFIG --help` explains the fields and shows them.
    """

    config: Annotated[tyro.conf.Positional[Path], tyro.conf.arg(metavar="CONFIG")]
    """A Python file that defines `study = Study(...)`."""
    out: Path
    """Folder for the results; made if absent. Results that lie there are replaced."""
    data_dir: Path | None = None
    """Folder with MNIST's four files. Otherwise JBN_DATA_DIR is asked, then they are downloaded."""


def _run(arguments: list[str]) -> None:
    from experiments.config import Study, load_study

    @dataclass(kw_only=True)
    class Run(_Run):
        study: Annotated[Study, tyro.conf.arg(name="")]

    Run.__doc__ = _Run.__doc__
    parse = partial(tyro.cli, prog=f"{PROGRAM} run", args=arguments)
    with _users(ValueError):
        if arguments and not arguments[0].startswith("-"):
            study = load_study(Path(arguments[0]))
            chosen = parse(Run, default=Run(config=tyro.MISSING, out=tyro.MISSING, study=study))
            study = chosen.study
        else:
            chosen = parse(_Run)
            study = load_study(chosen.config)
    _carry_out(study, chosen.out, chosen.data_dir, f"{PROGRAM} run {shlex.join(arguments)}")


def _carry_out(study: "Study", out: Path, data_dir: Path | None, command: str) -> None:
    from experiments.data import DataError
    from experiments.run import run

    console = Console()
    with _users(DataError, OSError):
        run(study, out, data_dir=data_dir, command=command, console=console)
    _write_report(out, console)


def _report(arguments: list[str]) -> None:
    def report(directory: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="DIR")]):
        """Write the report of a finished study again.

        Args:
            directory: The folder that `run` wrote to.
        """
        with _users(ValueError, OSError):
            _write_report(directory, Console())

    tyro.cli(report, prog=f"{PROGRAM} report", args=arguments)


def _write_report(directory: Path, console: Console) -> None:
    from experiments.report import print_table, write_report

    page = write_report(directory)
    print_table(json.loads((directory / "summary.json").read_text(encoding="utf-8")), console)
    console.print(f"Report: {page}", soft_wrap=True, highlight=False)


def _walkthrough(arguments: list[str]) -> None:
    from experiments import walkthrough

    with _users(ValueError):
        tyro.cli(walkthrough.main, prog=f"{PROGRAM} walkthrough", args=arguments)


def _bench(arguments: list[str]) -> None:
    from experiments import bench

    with _users(OSError):
        bench.main(arguments, prog=f"{PROGRAM} bench")


@contextmanager
def _users(*errors: type[Exception]) -> Iterator[None]:
    """Errors of the user's making: one line that says what to do, no traceback."""
    try:
        yield
    except errors as error:
        line = " ".join(str(error).split())
        Console(stderr=True, markup=False, highlight=False).print(line, soft_wrap=True)
        raise SystemExit(BAD_INPUT) from error


if __name__ == "__main__":
    if sys.argv[1:2] == ["bench"]:
        keep_freed_memory()
    main()
