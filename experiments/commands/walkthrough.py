"""`walkthrough [FILE]`: batch norm by hand, on a small table, as text or as a page."""

import webbrowser
from pathlib import Path

import tyro

from experiments.commands import BAD_INPUT, PROGRAM, ending
from experiments.system.console import make_console


def main(arguments: list[str]) -> None:
    """Carries out the command that `arguments` give."""
    from experiments.walkthrough.page import address
    from experiments.walkthrough.show import tell
    from experiments.walkthrough.steps import MEETING, walk
    from experiments.walkthrough.table import Header, read_table

    def walkthrough(
        csv: Path | None = None,
        header: Header = "auto",
        gamma: tuple[float, ...] = (),
        beta: tuple[float, ...] = (),
        epsilon: float = 1e-5,
        page: bool = False,
        open: bool = True,
    ) -> None:
        """Print batch norm step by step, for a meeting of three people or for your own table.

        Args:
            csv: Table of numbers, one example per row, with or without names.
            header: Whether the first row holds the columns' names; by default found out.
            gamma: The scale, one number or one per column.
            beta: The shift, one number or one per column.
            epsilon: Added to the variance before the square root.
            page: Open the page to play with instead, with your table if there is one.
            open: With --no-open its address is printed only.
        """
        table = None if csv is None else read_table(csv, header)
        console = make_console()
        if page:
            if gamma or beta or epsilon != 1e-5:
                raise ValueError("--gamma, --beta and --epsilon are set in the page itself")
            where = address(table)
            console.print(where, soft_wrap=True)
            if open:
                webbrowser.open(where)
            return
        if table is None:  # somebody is emphasised, and somebody shifted
            table, gamma, beta = MEETING, gamma or (1, 1, 2, 1), beta or (0, 0, 1, 0)
        tell(console, walk(table, gamma or (1,), beta or (0,), epsilon), epsilon)

    if arguments and not arguments[0].startswith("-"):
        arguments = ["--csv", *arguments]
    with ending(BAD_INPUT, ValueError):
        tyro.cli(walkthrough, prog=f"{PROGRAM} walkthrough", args=arguments)
