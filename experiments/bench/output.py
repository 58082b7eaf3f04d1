"""Output of a benchmark: tables on the terminal, the numbers as CSV, the page as Markdown."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import pandas as pd
from rich.table import Table

from experiments.report.markdown import markdown_table
from experiments.system.console import make_console
from experiments.system.environment import conditions
from experiments.system.files import write_whole


@dataclass(frozen=True)
class Report:
    """One benchmark's result."""

    name: str
    """Of its files."""
    title: str
    data: pd.DataFrame
    """Every number, one per row or one measured thing per row, unrounded: the CSV."""
    tables: Mapping[str, pd.DataFrame]
    """Heading to what is read: text, rows with the same first cell as the row above grouped."""
    notes: Sequence[str]
    """How it was measured, and who is missing and why."""


def publish(report: Report, out: Path | None, *, command: str) -> None:
    """Prints the report; in the folder `out` also leaves `<name>.csv` and `<name>.md`."""
    console = make_console()
    console.print(report.title, style="bold")
    for heading, table in report.tables.items():
        console.print(_terminal(heading, table))
    for line in (*report.notes, *conditions(command)):
        console.print(f"- {line}")
    if out is not None:
        write_whole(out / f"{report.name}.csv", report.data.to_csv(index=False).encode())
        write_whole(out / f"{report.name}.md", markdown(report, command).encode())
        files = f"{out / report.name}.csv and .md"
        console.print(f"Written: {files}", soft_wrap=True)


def markdown(report: Report, command: str) -> str:
    """Returns the page: conditions, notes, tables."""
    lines = [f"# {report.title}", ""]
    lines += [f"- {line}" for line in (*conditions(command), *report.notes)]
    for heading, table in report.tables.items():
        lines += ["", f"## {heading}", ""]
        lines += markdown_table(list(table.columns), table.itertuples(index=False))
    return "\n".join(lines) + "\n"


def spread(middle: float, low: float, high: float) -> str:
    """Writes median and quartiles, as every table has them."""
    return "" if pd.isna(middle) else f"{middle:.2f} ({low:.2f}–{high:.2f})"


def absences(absent: Mapping[str, str]) -> list[str]:
    return [f"Skipped: {name} ({reason})." for name, reason in absent.items()]


def _terminal(heading: str, table: pd.DataFrame) -> Table:
    shown = Table(title=heading, title_justify="left")
    for i, column in enumerate(table.columns):
        # Names to the left, a line each; numbers to the right.
        numbers = any(str(cell)[:1].isdigit() for cell in table[column])
        shown.add_column(str(column), justify="right" if numbers and i else "left")
    grouped = not table.iloc[:, 0].is_unique
    previous = None
    for cells in table.itertuples(index=False):
        repeated = grouped and cells[0] == previous
        if grouped and previous is not None and not repeated:
            shown.add_section()
        shown.add_row("" if repeated else str(cells[0]), *map(str, cells[1:]))
        previous = cells[0]
    return shown
