"""Tables as Markdown."""

from collections.abc import Iterable, Sequence

BAR = r"\|"  # a bar that ends no cell


def markdown_table(header: Sequence[object], rows: Iterable[Iterable[object]]) -> list[str]:
    """The lines of a Markdown table."""

    def line(cells: Iterable[object]) -> str:
        return f"| {' | '.join(str(cell).replace('|', BAR) for cell in cells)} |"

    return [line(header), line("---" for _ in header), *map(line, rows)]
