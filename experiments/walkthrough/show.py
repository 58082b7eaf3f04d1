"""The walkthrough as text: the moderator's story, told with the numbers of one table."""

import math
from collections.abc import Iterator, Sequence

import numpy as np
import pandas as pd
from rich import box
from rich.console import Console, Group, RenderableType
from rich.table import Table
from rich.text import Text

from experiments.walkthrough.steps import Steps, walk

MOST_ROWS, MOST_COLUMNS = 12, 6
ARTICLE = pd.DataFrame([[1, 2, 3, 4], [5, 6, 7, 8], [9, 10, 11, 12]], dtype=np.float64)


def tell(console: Console, steps: Steps, epsilon: float) -> None:
    """Prints the table and batch norm's steps, each with its formula and what it means."""
    console.print(Group(*_story(console, steps, epsilon)))


def _story(console: Console, steps: Steps, epsilon: float) -> Iterator[RenderableType]:
    num_rows, num_features = steps.x.shape
    rows, columns = _shown(num_rows, MOST_ROWS), _shown(num_features, MOST_COLUMNS)
    names = steps.x.index[rows]

    def table(**labelled: pd.Series | pd.DataFrame) -> Iterator[RenderableType]:
        labels, values = [], []
        for label, part in labelled.items():
            if isinstance(part, pd.Series):
                labels.append(label)
                values.append(part.to_numpy())
            else:
                labels += [str(name) if label == "x" else f"{label}, {name}" for name in names]
                values += list(part.to_numpy()[rows])
        data = pd.DataFrame(np.array(values), labels, steps.x.columns)
        yield from features(console, data.iloc[:, columns])

    yield _heading(f"The batch: {num_rows} examples (rows), {num_features} features (columns)")
    yield (
        "A meeting goes badly when some shout and others whisper. Batch norm is the moderator who "
        "lets everyone speak equally: over the rows of the batch it brings each column to the "
        f"same level and the same volume.{_loudest(steps)}"
    )
    if len(rows) < num_rows or len(columns) < num_features:
        yield (
            f"Of {num_rows} rows and {num_features} columns the first and the last are shown; the "
            "numbers are those of all."
        )
    yield from table(x=steps.x)

    yield from _step("1. Mean", "mean = sum(x) / N")
    yield "The level a feature speaks at, on average."
    yield from table(mean=steps.mean)

    yield from _step("2. Spread", "sigma = sqrt(variance), variance = sum((x - mean)^2) / N")
    yield "How far a feature swings around its mean: the root of the average squared distance."
    yield from table(variance=steps.variance, sigma=steps.sigma)

    yield from _step("3. Equal voices", "x_hat = (x - mean) / sqrt(variance + epsilon)")
    yield (
        "How many sigmas each number is above or below its feature's mean, so that all features "
        f"speak equally; epsilon = {epsilon:g} keeps a constant feature from dividing by zero."
    )
    yield from table(x_hat=steps.normalised)

    yield from _step("4. The boss decides", "y = gamma * x_hat + beta")
    yield (
        "Two numbers per feature, which the network learns: gamma is the boss's emphasis and "
        "becomes the new spread, beta is the shift and becomes the new mean. Layers begin with 1 "
        "and 0."
    )
    yield from table(gamma=steps.gamma, beta=steps.beta)
    if (steps.gamma == 1).all() and (steps.beta == 0).all():
        yield "Here y is x_hat: try --gamma 2 --beta 1.\n"
    else:
        yield from table(y=steps.y)

    yield _heading("N or N-1")
    yield from table(**{"var., N": steps.variance, "var., N-1": steps.sample_variance})
    yield _denominators(num_rows)


def _shown(count: int, most: int) -> list[int]:
    return list(range(count)) if count <= most else [*range(most - 1), count - 1]


def _loudest(steps: Steps) -> str:
    loud, quiet = steps.sigma.argmax(), steps.sigma.argmin()
    if not steps.sigma.iloc[quiet] or steps.sigma.iloc[loud] < 2 * steps.sigma.iloc[quiet]:
        return ""
    ratio = steps.sigma.iloc[loud] / steps.sigma.iloc[quiet]
    shouts, whispers = steps.x.columns[[loud, quiet]]
    return f' Here "{shouts}" shouts: it swings {ratio:.4g} times as far as "{whispers}".'


def _denominators(num_rows: int) -> str:
    article = walk(ARTICLE)
    right, code = (_listed(part.iloc[:, 0]) for part in (article.y, article.sample_y))
    return (
        f"Divided by N-1 = {num_rows - 1} the variance would be {num_rows / (num_rows - 1):.4f} "
        f"times as large, and x_hat {math.sqrt((num_rows - 1) / num_rows):.4f} times. Batch norm "
        "divides by N: it is this batch that is to have spread 1. N-1 answers what the variance "
        "of all the data is, guessed from these rows.\n\n"
        "An article explains batch norm with [[1, 2, 3, 4], [5, 6, 7, 8], [9, 10, 11, 12]]. Its "
        f"text divides by N: variance {article.variance[0]:.4f}, output {right}. Its PyTorch code "
        "calls x.var(dim=0), which divides by N-1 unless told otherwise: variance "
        f"{article.sample_variance[0]:.4f}, output {code}. The text is batch norm. PyTorch's own "
        "BatchNorm layers normalise with N too, and use N-1 only for the running variance.\n\n"
        "The same to play with, and what comes after: python -m experiments walkthrough --page"
    )


def _heading(text: str) -> Text:
    return Text(text, style="bold cyan")


def _step(title: str, formula: str) -> Iterator[Text]:
    yield _heading(title)
    yield Text(f"    {formula}", style="bold")


def features(console: Console, values: pd.DataFrame) -> Iterator[RenderableType]:
    """Lays out labelled rows under the features' names, in several tables if one is too wide.

    Numbers are never cut: a narrow terminal gets fewer columns per table.
    """
    labels = [str(label) for label in values.index]
    cells = [_four_places(values.iloc[:, i].tolist()) for i in range(values.shape[1])]
    label_width = min(max(map(len, labels)), console.width // 3)
    widths = [
        max([8, min(12, len(str(name))), *map(len, column)])
        for name, column in zip(values.columns, cells, strict=True)
    ]
    for block in _blocks(widths, console.width - label_width - 5):
        table = Table(box=box.SIMPLE_HEAD if console.is_terminal else None, pad_edge=False)
        table.add_column("", style="dim", width=label_width, overflow="fold")
        for i in block:
            name = Text(str(values.columns[i]))
            table.add_column(name, justify="right", width=widths[i], overflow="fold")
        for row, label in enumerate(labels):
            table.add_row(Text(label), *(cells[i][row] for i in block))
        yield table
        if not console.is_terminal:
            yield ""


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


def _four_places(column: Sequence[float]) -> list[str]:
    """Writes a column to four places, or with an exponent where four places would not show it.

    Below 1e-12 it is rounding, and zero is the better picture of that.
    """
    size = max(map(abs, column))
    style = "z.4e" if 1e-12 < size < 1e-3 or size >= 1e9 else "z.4f"
    return [format(number, style) for number in column]


def _listed(numbers: pd.Series) -> str:
    return ", ".join(f"{number:z.4f}" for number in numbers)
