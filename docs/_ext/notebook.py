"""The Python blocks of a Markdown page, and the page as a Jupyter notebook.

`tests/test_docs.py` runs the same blocks, so that a notebook holds what was run.
"""

import re
from typing import Any

from markdown_it import MarkdownIt
from markdown_it.token import Token


def parse(text: str) -> list[Token]:
    return MarkdownIt("gfm-like", {"linkify": False}).parse(text)


def python_blocks(tokens: list[Token]) -> list[tuple[Token, Token | None]]:
    """Returns every Python block, each with the block of output that the page shows under it."""
    following = [*tokens[1:], None]
    return [
        (token, after if after is not None and after.info == "text" else None)
        for token, after in zip(tokens, following)
        if token.type == "fence" and token.info.split()[:1] == ["python"]
    ]


def notebook(text: str) -> dict[str, Any] | None:
    """Returns the page in Jupyter's format, with its outputs; None if it has no Python block."""
    lines, cells, at = text.splitlines(keepends=True), [], 0

    def prose(until: int) -> None:
        if words := "".join(lines[at:until]).strip():
            cells.append({"cell_type": "markdown", "metadata": {}, "source": words})

    for code, output in python_blocks(parse(text)):
        assert code.map is not None
        prose(code.map[0])
        shown = (
            {"output_type": "stream", "name": "stdout", "text": output.content} if output else None
        )
        raises = bool(output and re.match(r"\w+Error: ", output.content))
        cells.append(
            {
                "cell_type": "code",
                "execution_count": None,
                "metadata": {"tags": ["raises-exception"]} if raises else {},
                "source": code.content.rstrip("\n"),
                "outputs": [shown] if shown else [],
            }
        )
        at = (output or code).map[1]  # type: ignore[index]
    if not cells:
        return None
    prose(len(lines))
    for index, cell in enumerate(cells):
        cell["id"] = f"cell-{index}"
    kernel = {"name": "python3", "display_name": "Python 3", "language": "python"}
    return {"cells": cells, "metadata": {"kernelspec": kernel}, "nbformat": 4, "nbformat_minor": 5}
