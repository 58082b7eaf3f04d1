"""Batch norm by hand: each step for a small table, with its formula and what it means.

The numbers come from `jbn` itself, in float64 so that the four places shown are right.
"""

import csv as csv_format
import math
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from rich import box
from rich.table import Table

from experiments.system.console import Console, make_console
from jbn import batch_moments, bessel_correction, normalize

ARTICLE = np.array([[1, 2, 3, 4], [5, 6, 7, 8], [9, 10, 11, 12]], dtype=np.float64)
LONGEST_TABLE = 12


class Batch(NamedTuple):
    """A table of numbers: one example per row, one named feature per column."""

    features: list[str]
    x: np.ndarray


class Steps(NamedTuple):
    """What batch norm computes on the way from `x` to `y`, and what dividing by N-1 changes.

    Shapes: `(N, C)` for `normalised` and the outputs `y`, `(C,)` for the rest. The `sample_`
    fields come from the variance divided by N-1, all others from the one divided by N.
    """

    gamma: np.ndarray
    beta: np.ndarray
    mean: np.ndarray
    variance: np.ndarray
    normalised: np.ndarray
    y: np.ndarray
    sample_variance: np.ndarray
    sample_y: np.ndarray


def main(
    csv: Path | None = None,
    gamma: tuple[float, ...] = (1.0,),
    beta: tuple[float, ...] = (0.0,),
    epsilon: float = 1e-5,
) -> None:
    """Print batch norm step by step, for a 3x4 example or for your own table.

    Args:
        csv: Comma-separated table of numbers, one example per row, with or without a header row.
        gamma: The scale, one number or one per column.
        beta: The shift, one number or one per column.
        epsilon: Added to the variance before the square root, so that nothing is divided by zero.

    Raises:
        ValueError: If the table or an option cannot be used; the message names the place.
    """
    batch = Batch(["x1", "x2", "x3", "x4"], ARTICLE) if csv is None else read_batch(csv)
    steps = walk(batch, gamma, beta, epsilon)
    console = make_console()
    show(console, batch, steps, epsilon)
    is_article = csv is None and (*gamma, *beta, epsilon) == (1.0, 0.0, 1e-5)
    compare_denominators(console, batch, steps, is_article=is_article)


def walk(
    batch: Batch, gamma: Sequence[float], beta: Sequence[float], epsilon: float = 1e-5
) -> Steps:
    """Computes every step of batch norm for one table.

    Raises:
        ValueError: If there is one row only, or gamma, beta or epsilon do not fit.
    """
    num_rows, num_features = batch.x.shape
    if num_rows < 2:
        raise ValueError(
            f"the table has {num_rows} row, and the variance of one example is always zero: "
            "batch norm needs two rows or more"
        )
    scale = _per_column("gamma", gamma, num_features)
    bias = _per_column("beta", beta, num_features)
    if not (math.isfinite(epsilon) and epsilon > 0):
        raise ValueError(f"epsilon is {epsilon}, needs a positive number such as 1e-5")
    with jax.enable_x64(True):
        x = jnp.asarray(batch.x, jnp.float64)
        affine = jnp.asarray(scale), jnp.asarray(bias)
        moments = batch_moments(x)
        sample = bessel_correction(moments)
        normalised = normalize(x, moments.mean, moments.var, epsilon=epsilon)
        y = normalize(x, moments.mean, moments.var, *affine, epsilon=epsilon)
        sample_y = normalize(x, sample.mean, sample.var, *affine, epsilon=epsilon)
    for feature, variance in zip(batch.features, moments.var.tolist(), strict=True):
        if not math.isfinite(variance):
            raise ValueError(f"column {feature}: its numbers are too large to square, rescale them")
    return Steps(
        gamma=scale,
        beta=bias,
        mean=np.asarray(moments.mean),
        variance=np.asarray(moments.var),
        normalised=np.asarray(normalised),
        y=np.asarray(y),
        sample_variance=np.asarray(sample.var),
        sample_y=np.asarray(sample_y),
    )


def _per_column(name: str, numbers: Sequence[float], num_features: int) -> np.ndarray:
    for number in numbers:
        if not math.isfinite(number):
            raise ValueError(f"{name} is {number}, needs a finite number")
    if len(numbers) not in (1, num_features):
        raise ValueError(
            f"{name} has {len(numbers)} numbers and the table has {num_features} columns: "
            f"give one number, or {num_features}"
        )
    return np.broadcast_to(np.asarray(numbers, np.float64), (num_features,))


def read_batch(path: Path) -> Batch:
    """Reads a table of numbers from a CSV file.

    The first row is a header if none of its cells is a number. Rows are counted as the lines of
    the file, so that the row an error names is the one a text editor or spreadsheet shows.

    Raises:
        ValueError: If the file cannot be read, a row is longer or shorter than the first, or a
            cell is not a finite number.
    """
    rows = _read_rows(path)
    if not rows:
        raise ValueError(f"{path} is empty: it needs rows of numbers separated by commas")
    first_line, first = rows[0]
    has_header = not any(_is_number(cell) for cell in first)
    features = (
        [cell.strip() for cell in first] if has_header else [f"x{i + 1}" for i in range(len(first))]
    )
    body = rows[1:] if has_header else rows
    if not body:
        raise ValueError(
            f"{path} has no row of numbers, only row {first_line}: {', '.join(features)!r}"
        )
    for line, cells in body:
        if len(cells) != len(features):
            raise ValueError(
                f"{path}, row {line} has {len(cells)} cells, row {first_line} has {len(features)}: "
                "every row needs the same columns"
            )
    numbers = [
        [_number(cell, path, line, i, features) for i, cell in enumerate(cells)]
        for line, cells in body
    ]
    return Batch(features, np.array(numbers, np.float64))


def _read_rows(path: Path) -> list[tuple[int, list[str]]]:
    try:
        # utf-8-sig: spreadsheets begin their CSV files with a byte order mark.
        with path.open(newline="", encoding="utf-8-sig") as file:
            reader = csv_format.reader(file)
            return [(reader.line_num, cells) for cells in reader if "".join(cells).strip()]
    except OSError as error:
        raise ValueError(f"cannot read {path}: {error.strerror}") from None
    except UnicodeDecodeError:
        raise ValueError(f"cannot read {path}: it is not text in UTF-8") from None
    except csv_format.Error as error:
        raise ValueError(f"cannot read {path} as CSV: {error}") from None


def _is_number(cell: str) -> bool:
    try:
        float(cell)
    except ValueError:
        return False
    return True


def _number(cell: str, path: Path, line: int, column: int, features: list[str]) -> float:
    if _is_number(cell) and math.isfinite(float(cell)):
        return float(cell)
    came = f"{cell.strip()!r} is not a finite number" if cell.strip() else "the cell is empty"
    raise ValueError(
        f"{path}, row {line}, column {column + 1} ({features[column]}): {came}; "
        "every cell needs one such as 1.5, with commas between cells"
    )


def show(console: Console, batch: Batch, steps: Steps, epsilon: float) -> None:
    """Prints the table and the four steps, each with its formula and a sentence."""
    num_rows, num_features = batch.x.shape
    _heading(console, f"The batch: {num_rows} examples (rows), {num_features} features (columns)")
    console.print(
        "Think of a meeting where some people shout and others whisper. Batch norm is the "
        "moderator who lets everyone speak equally: it brings each column, over the rows of the "
        "batch, to the same level and the same volume."
    )
    print_features(console, batch.features, _rows("row", batch.x))

    _step(console, "1. Mean", "mean = sum(x) / N", "The level a feature speaks at, on average.")
    print_features(console, batch.features, [("mean", steps.mean)])

    _step(
        console,
        "2. Variance",
        "variance = sum((x - mean)^2) / N",
        "How far a feature swings around its mean: the average squared distance from it.",
    )
    print_features(console, batch.features, [("variance", steps.variance)])

    _step(
        console,
        "3. Normalised",
        "x_hat = (x - mean) / sqrt(variance + epsilon)",
        "Each number says how many standard deviations it lies above or below its feature's mean, "
        f"so all features speak equally; epsilon = {epsilon:g} keeps a constant feature from "
        "dividing by zero.",
    )
    print_features(console, batch.features, _rows("row", steps.normalised))

    _step(
        console,
        "4. Scaled and shifted",
        "y = gamma * x_hat + beta",
        "The network learns gamma and beta: where a feature should be louder or higher after all, "
        "it can say so.",
    )
    affine = [("gamma", steps.gamma), ("beta", steps.beta)]
    print_features(console, batch.features, affine)
    print_features(console, batch.features, _rows("y, row", steps.y))


def compare_denominators(console: Console, batch: Batch, steps: Steps, *, is_article: bool) -> None:
    """Prints what changes when the variance is divided by N-1, and which one is batch norm."""
    num_rows = len(batch.x)
    _heading(console, "What if the variance is divided by N-1?")
    console.print(
        f"Dividing by N-1 = {num_rows - 1} instead of N = {num_rows} makes the variance "
        f"{num_rows / (num_rows - 1):.4f} times as large, and so the normalised numbers "
        f"{math.sqrt((num_rows - 1) / num_rows):.4f} times as large."
    )
    variances = [("variance, N", steps.variance), ("variance, N-1", steps.sample_variance)]
    print_features(console, batch.features, variances)
    print_features(console, batch.features, _rows("y, N, row", steps.y))
    print_features(console, batch.features, _rows("y, N-1, row", steps.sample_y))
    console.print(
        "Batch norm divides by N. The batch itself is what gets normalised, so its own average "
        "squared distance must become one, and that average is over N examples. Dividing by N-1 "
        "answers another question: what the variance of all the data is, guessed from these rows."
    )
    console.print()
    if is_article:
        console.print(
            f"Both appear in the article this example comes from. Its text divides by N: variance "
            f"{steps.variance[0]:.4f}, output {_listed(steps.y[:, 0])}. Its PyTorch code calls "
            f"x.var(dim=0), which divides by N-1 unless told otherwise: variance "
            f"{steps.sample_variance[0]:.4f}, output {_listed(steps.sample_y[:, 0])}. "
            "The text is batch norm; the code is not quite, and x.var(dim=0, unbiased=False) "
            "would make it so."
        )
        console.print()
    console.print(
        "PyTorch's own BatchNorm layers normalise with N, as jbn does. They use N-1 only for the "
        "running variance that they keep for inference."
    )


def _heading(console: Console, text: str) -> None:
    console.print(text, style="bold cyan")


def _step(console: Console, title: str, formula: str, meaning: str) -> None:
    _heading(console, title)
    console.print(f"    {formula}", style="bold")
    console.print(meaning)


def _rows(label: str, values: np.ndarray) -> list[tuple[str, np.ndarray | None]]:
    """Labels one row per example; a long table keeps its beginning and its last row."""
    labelled = [(f"{label} {i + 1}", row) for i, row in enumerate(values)]
    if len(labelled) <= LONGEST_TABLE:
        return list(labelled)
    return [*labelled[: LONGEST_TABLE - 2], ("...", None), labelled[-1]]


def print_features(
    console: Console, features: list[str], rows: Iterable[tuple[str, np.ndarray | None]]
) -> None:
    """Prints labelled rows under the features' names, in several tables if one is too wide.

    Numbers are never cut: a narrow terminal gets fewer columns per table.
    """
    labels, values = zip(*rows, strict=True)
    columns = [
        _four_places([None if row is None else row[i] for row in values])
        for i in range(len(features))
    ]
    label_width = max(map(len, labels))
    widths = [max([8, *map(len, column)]) for column in columns]
    for block in _blocks(widths, console.width - label_width - 5):
        table = Table(box=box.SIMPLE_HEAD if console.is_terminal else None, pad_edge=False)
        table.add_column("", style="dim", min_width=label_width, no_wrap=True)
        for i in block:
            table.add_column(features[i], justify="right", width=widths[i], overflow="fold")
        for row, label in enumerate(labels):
            table.add_row(label, *(columns[i][row] for i in block))
        console.print(table)
        if not console.is_terminal:
            console.print()


def _blocks(widths: list[int], room: int) -> list[list[int]]:
    blocks: list[list[int]] = [[]]
    used = 0
    for i, width in enumerate(widths):
        if blocks[-1] and used + width + 3 > room:
            blocks.append([])
            used = 0
        blocks[-1].append(i)
        used += width + 3
    return blocks


def _four_places(column: Sequence[float | None]) -> list[str]:
    """Writes a column to four places, or with an exponent where four places would not show it.

    Below 1e-12 it is rounding, and zero is the better picture of that.
    """
    size = max(abs(number) for number in column if number is not None)
    style = "z.4e" if 1e-12 < size < 1e-3 or size >= 1e9 else "z.4f"
    return ["..." if number is None else format(number, style) for number in column]


def _listed(numbers: Iterable[float]) -> str:
    return ", ".join(f"{number:z.4f}" for number in numbers)
