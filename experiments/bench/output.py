"""What a benchmark leaves: tables on the terminal, the numbers as CSV, the page as Markdown."""

import datetime
import os
import platform
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import jax
import pandas as pd
from rich.console import Console
from rich.table import Table

from experiments.devices import HUGE_PAGES, MALLOC, ONE_ARENA, cores

PACKAGES = (
    "jbn", "jax", "jaxlib", "libtpu", "jax-cuda12-plugin", "flax", "dm-haiku", "equinox", "keras",
    "torch", "optax", "numpy",
)  # fmt: skip

BAR = r"\|"  # a bar that ends no cell


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
    console = Console()
    console.print(f"[bold]{report.title}[/bold]")
    for heading, table in report.tables.items():
        console.print(_terminal(heading, table))
    for line in (*report.notes, *conditions(command)):
        console.print(f"- {line}", markup=False, highlight=False)
    if out is not None:
        report.data.to_csv(out / f"{report.name}.csv", index=False)
        (out / f"{report.name}.md").write_text(markdown(report, command), encoding="utf-8")
        files = f"{out / report.name}.csv and .md"
        console.print(f"Written: {files}", markup=False, highlight=False, soft_wrap=True)


def markdown(report: Report, command: str) -> str:
    """The page: conditions, notes, tables."""
    lines = [f"# {report.title}", ""]
    lines += [f"- {line}" for line in (*conditions(command), *report.notes)]
    for heading, table in report.tables.items():
        lines += ["", f"## {heading}", ""]
        lines += markdown_table(list(table.columns), table.itertuples(index=False))
    return "\n".join(lines) + "\n"


def progress(text: str) -> None:
    """Says on stderr what is being measured."""
    Console(stderr=True, highlight=False).print(f"[dim]{text} ..[/dim]")


def spread(middle: float, low: float, high: float) -> str:
    """Median and quartiles, as every table writes them."""
    return "" if pd.isna(middle) else f"{middle:.2f} ({low:.2f}–{high:.2f})"


def absences(absent: Mapping[str, str]) -> list[str]:
    return [f"Skipped: {name} ({reason})." for name, reason in absent.items()]


def markdown_table(header: Sequence[object], rows: Iterable[Iterable[object]]) -> list[str]:
    """The lines of a Markdown table."""

    def line(cells: Iterable[object]) -> str:
        return f"| {' | '.join(str(cell).replace('|', BAR) for cell in cells)} |"

    return [line(header), line("---" for _ in header), *map(line, rows)]


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


def conditions(command: str) -> list[str]:
    """What the numbers may depend on, a line each."""
    device = jax.devices()[0]
    versions = [f"Python {platform.python_version()}"]
    for package in PACKAGES:
        try:
            versions.append(f"{package} {version(package)}")
        except PackageNotFoundError:
            continue
    chosen = (*ONE_ARENA, *HUGE_PAGES, *MALLOC, "XLA_FLAGS")
    settings = {name: os.environ[name] for name in chosen if name in os.environ}
    return [
        f"Command: `{command}`",
        f"Date: {datetime.datetime.now(datetime.UTC).date()}",
        f"Machine: {_processor()}, {cores()} cores"
        + ("" if device.platform == "cpu" else f"; {device.device_kind}"),
        f"Versions: {', '.join(versions)}",
        "Environment: "
        + (" ".join(f"{name}={value}" for name, value in settings.items()) or "nothing set"),
    ]


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        lines = []
    models = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return models[0] if models else platform.processor() or platform.machine()
