"""`list [DIR]`: the studies under a folder, and how far each has come."""

from pathlib import Path
from typing import Annotated, NamedTuple

import tyro
from rich.table import Column, Table
from rich.text import Text

from experiments.commands import BAD_INPUT, PROGRAM, ending
from experiments.system.console import Console, make_console, printable


def main(arguments: list[str]) -> None:
    """Carries out the command that `arguments` give."""

    def list_(
        directory: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="DIR")] = Path(),
    ):
        """Show the studies under a folder: finished, running, or at which step they were left.

        Args:
            directory: Where to look, and in all folders below.
        """
        with ending(BAD_INPUT, OSError):
            _show(directory, make_console())

    tyro.cli(list_, prog=f"{PROGRAM} list", args=arguments)


class _Found(NamedTuple):
    state: str
    diverged: str


def _show(directory: Path, console: Console) -> None:
    if not directory.is_dir():
        raise NotADirectoryError(f"{directory}: is not a folder.")
    from experiments.runner import results

    folders = sorted(path.parent for path in directory.rglob(results.CONFIG))
    if not folders:
        console.print(f"{directory}: no studies there.", soft_wrap=True)
        return
    table = Table(Column("folder", overflow="fold"), "state", Column("diverged", justify="right"))
    for folder in folders:
        table.add_row(*map(Text, map(printable, (str(folder), *_find(folder)))))
    console.print(table)


def _find(directory: Path) -> _Found:
    from experiments.runner import checkpoint, folder
    from experiments.system import lock

    try:
        config = folder.read_config(directory) or {}
        total = len(config["norms"]) * config["steps"]
        runs = (
            len(config["identity"]["networks"])
            * len(config["learning_rates"])
            * len(config["seeds"])
        )
        if (dataset := folder.finished(directory)) is not None:
            return _Found("finished", f"{int((dataset.diverged_at >= 0).sum())} of {runs}")
        saved = checkpoint.peek(directory)
    except Exception as error:  # whatever lies there, the others are listed
        return _Found(f"cannot be read: {error or type(error).__name__}", "")
    state = f"at step {saved.done if saved else 0} of {total}"
    held = lock.holder(directory)
    state = f"running, {state} ({held})" if held else f"unfinished {state}"
    return _Found(state, f"{saved.diverged if saved else 0} of {runs}")
