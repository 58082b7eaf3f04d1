"""Tables of numbers from CSV files as people have them: any separator, decimal commas, names."""

import codecs
import csv
import io
import math
import re
from collections.abc import Iterator
from itertools import islice, pairwise
from pathlib import Path
from typing import Literal

import numpy as np
import pandas as pd

Header = Literal["auto", "yes", "no"]
Lines = list[tuple[int, list[str]]]

# A comma comes late and a space last: with the others they are inside numbers and names.
SEPARATORS = ("\t", ";", "|", ",", " ")
THOUSANDS = re.compile(r"[-+]?[1-9]\d{0,2}(,\d{3})+")


def read_table(path: Path | str, header: Header = "auto") -> pd.DataFrame:
    """Reads numbers from a text file: an example per row, a feature per column, names for both.

    Separators (tab, semicolon, bar, comma, spaces), decimal commas and the encoding (UTF-8, UTF-16
    with its mark, Windows-1252) are found out; lines that begin with "# " are left out. A first
    column of words names the rows, a first row of words the columns. A first row of numbers that
    count up (2020, 2021) while others do not may be either, and `header` has to say.

    Raises:
        ValueError: if the file cannot be read, or a cell is not a finite number; the message
            names the line of the file and what to do.
    """
    path = Path(path)
    lines = _split(path, _text(path))
    if not lines:
        raise ValueError(f"{path} is empty: it needs rows of numbers")
    (first_line, first), width = lines[0], len(lines[0][1])
    for line, cells in lines:
        if len(cells) != width:
            raise ValueError(
                f"{path}, row {line} has {_cells(cells)}, row {first_line} has {width}: "
                "every row needs the same columns, with the same separator"
            )
    decimal = _decimal_mark(path, lines)
    labelled = _has_labels(lines, decimal)
    if width == labelled:
        raise ValueError(f"{path}, row {first_line}: no cell is a number, {first[0]!r} neither")
    if _has_header(path, lines, labelled, decimal, header):
        lines, columns = lines[1:], first[labelled:]
    else:
        columns = [f"x{i + 1}" for i in range(width - labelled)]
    if not lines:
        raise ValueError(f"{path} has no row of numbers, only row {first_line}: {first}")
    rows = [
        [_number(path, line, i, cell, decimal) for i, cell in enumerate(cells) if i >= labelled]
        for line, cells in lines
    ]
    names = [cells[0] if labelled else f"row {i + 1}" for i, (_, cells) in enumerate(lines)]
    return pd.DataFrame(np.array(rows, np.float64), names, columns)


def _text(path: Path) -> str:
    try:
        content = path.read_bytes()
    except OSError as error:
        raise ValueError(f"cannot read {path}: {error.strerror}") from None
    utf16 = content.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))
    for encoding in ("utf-16",) if utf16 else ("utf-8-sig", "cp1252"):
        try:
            text = content.decode(encoding)
        except UnicodeDecodeError:
            continue
        if "\0" not in text:
            return text
    raise ValueError(f"cannot read {path}: it is not text; save the table as CSV in UTF-8")


def _split(path: Path, text: str) -> Lines:
    """Splits numbered rows into cells, by the first separator that gives all rows as many.

    `csv.Sniffer` takes the commas of "1,5;2,5" for separators, and fails on a single column.
    """
    named = re.match(r"sep=(.)\r?\n", text)  # Excel's own way to name it
    rows = list(_rows(path, text, named[1] if named else _separator(path, text)))
    return rows[1:] if named else rows


def _separator(path: Path, text: str) -> str:
    beginnings = {s: [cells for _, cells in islice(_rows(path, text, s), 100)] for s in SEPARATORS}
    widths = {s: {len(cells) for cells in rows} for s, rows in beginnings.items()}
    fitting = [s for s in SEPARATORS if widths[s] - {1}]
    *others, space = SEPARATORS
    for separator in others:
        if separator in fitting and len(widths[separator]) == 1:
            return separator
    if set(fitting) - {space}:
        return fitting[0]  # of rows unlike each other, which will be said
    if space in fitting and (len(widths[space]) == 1 or _parse(beginnings[space][0][0], ".")):
        return space
    return others[0]  # one column, perhaps under a name of several words


def _rows(path: Path, text: str, separator: str) -> Iterator[tuple[int, list[str]]]:
    lines = (line.strip(" \n") + "\n" for line in io.StringIO(text, newline=None))
    kept = ("\n" if line.startswith("# ") else line for line in lines)  # lines keep their number
    reader = csv.reader(kept, delimiter=separator, skipinitialspace=True)
    try:
        for cells in reader:
            cells = [cell.strip() for cell in cells]
            if any(cells):
                yield reader.line_num, cells
    except csv.Error as error:
        raise ValueError(f"cannot read {path} as CSV: {error}") from None


def _parse(cell: str, decimal: str) -> float | None:
    """Returns a finite number or None."""
    try:
        value = float(cell.replace(",", ".") if decimal == "," else cell)
    except ValueError:
        return None
    return value if math.isfinite(value) and "_" not in cell else None  # float("1_000") is 1000


def _decimal_mark(path: Path, lines: Lines) -> str:
    """Returns a comma if numbers are written with it, unless it may as well be of thousands."""
    with_comma = [
        (line, cell)
        for line, cells in lines
        for cell in cells
        if "," in cell and (_parse(cell, ",") is not None or THOUSANDS.fullmatch(cell))
    ]
    if not with_comma:
        return "."
    line, cell = with_comma[0]
    if all(THOUSANDS.fullmatch(cell) for _, cell in with_comma):
        raise ValueError(
            f"{path}, row {line}: {cell!r} may have a decimal comma or one of thousands; "
            "write it without a comma"
        )
    for line, cells in lines:
        for cell in cells:
            if "." in cell and _parse(cell, ".") is not None:
                raise ValueError(
                    f"{path}, row {line}: {cell!r} has a point, and other numbers a decimal comma"
                )
    return ","


def _has_labels(lines: Lines, decimal: str) -> bool:
    """Tells whether the first column holds names: words, or whatever is below an empty corner."""
    corner = lines[0][1][0] == "" and len(lines) > 1
    body = lines[1:] or lines
    return corner or all(cells[0] and _parse(cells[0], decimal) is None for _, cells in body)


def _has_header(path: Path, lines: Lines, labelled: bool, decimal: str, header: Header) -> bool:
    if header != "auto":
        return header == "yes"
    (line, first), rest = lines[0], lines[1:]
    if labelled and first[0] == "":
        return True
    numbers = [_parse(cell, decimal) for cell in first[labelled:]]
    if all(number is None for number in numbers):
        return True

    def count_up(cells: list[str]) -> bool:
        values = [_parse(cell, decimal) for cell in cells[labelled:]]
        return len(values) > 1 and all(
            a is not None and b == a + 1 and a.is_integer() for a, b in pairwise(values)
        )

    doubtful = count_up(first) and not all(count_up(cells) for _, cells in rest)
    mixed = any(number is None for number in numbers) and all(first)
    if doubtful or (mixed and rest):
        shown = ", ".join(first[labelled:][:4])
        raise ValueError(
            f"{path}, row {line} ({shown}) may be names or numbers: --header yes makes it the "
            "names of the columns, --header no the first example"
        )
    return False


def _number(path: Path, line: int, column: int, cell: str, decimal: str) -> float:
    value = _parse(cell, decimal)
    if value is not None:
        return value
    reason = f"{cell!r} is not a finite number" if cell else "the cell is empty"
    raise ValueError(
        f"{path}, row {line}, column {column + 1}: {reason}; every cell needs one such as 1.5, "
        "but for names in the first row and the first column"
    )


def _cells(cells: list[str]) -> str:
    return "1 cell" if len(cells) == 1 else f"{len(cells)} cells"
