"""The documentation runs: its Python blocks, the output shown under them, and its links.

A block marked `python` is executed; the blocks of one page share a namespace, from top to bottom.
A block marked `text` straight after it is what it prints. Line breaks and `...` are free there.
"""

import contextlib
import doctest
import io
import re
from pathlib import Path

import jax
import pytest
from markdown_it import MarkdownIt
from markdown_it.token import Token

ROOT = Path(__file__).parent.parent
PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").glob("**/*.md")])


def name(page: Path) -> str:
    return page.relative_to(ROOT).as_posix()


def parse(page: Path) -> list[Token]:
    return MarkdownIt("gfm-like", {"linkify": False}).parse(page.read_text(encoding="utf-8"))


def python_blocks(tokens: list[Token]) -> list[tuple[Token, str | None]]:
    """Every Python block with the output that the page shows for it, if it shows any."""
    following = [*tokens[1:], None]
    return [
        (token, after.content if after is not None and after.info == "text" else None)
        for token, after in zip(tokens, following, strict=True)
        if token.type == "fence" and token.info.split()[:1] == ["python"]
    ]


def run(page: Path, tokens: list[Token]) -> None:
    namespace = {"__name__": name(page)}
    for token, expected in python_blocks(tokens):
        assert token.map is not None
        # Blank lines in front make a traceback name the page's own line.
        source = "\n" * (token.map[0] + 1) + token.content
        shown = io.StringIO()
        with contextlib.redirect_stdout(shown):
            exec(compile(source, str(page), "exec"), namespace)
        flags = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE
        if expected is not None:
            matches = doctest.OutputChecker().check_output(expected, shown.getvalue(), flags)
            assert matches, (
                f"{name(page)}, line {token.map[0] + 1} prints\n{shown.getvalue()}"
                f"and the page shows\n{expected}"
            )


def anchors(page: Path) -> set[str]:
    """The anchors that GitHub gives to a page's headings."""
    tokens = parse(page)
    titles = [tokens[i + 1].content for i, t in enumerate(tokens) if t.type == "heading_open"]
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}


def relative_links(tokens: list[Token]) -> list[str]:
    inside = [child for token in tokens for child in token.children or []]
    targets = [str(child.attrs.get("href") or child.attrs.get("src") or "") for child in inside]
    return [target for target in targets if target and not re.match(r"[a-z]+:", target)]


def broken_links(page: Path, tokens: list[Token]) -> list[str]:
    broken = []
    for target in relative_links(tokens):
        path, _, anchor = target.partition("#")
        goal = (page.parent / path).resolve() if path else page
        if not goal.exists() or (anchor and anchor not in anchors(goal)):
            broken.append(target)
    return broken


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_python_blocks_run(page, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    # As a reader has it, not as the other tests have it.
    with jax.numpy_rank_promotion("allow"), jax.numpy_dtype_promotion("standard"):
        run(page, parse(page))


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_relative_links_lead_somewhere(page):
    assert broken_links(page, parse(page)) == []


def test_the_pages_with_code_are_found():
    with_code = {name(page) for page in PAGES if python_blocks(parse(page))}
    assert with_code >= {"README.md", "docs/math.md", "docs/tutorial.md", "docs/conventions.md"}


@pytest.fixture
def page(tmp_path, monkeypatch):
    monkeypatch.setattr(f"{__name__}.ROOT", tmp_path)

    def write(text: str) -> Path:
        path = tmp_path / "page.md"
        path.write_text(text, encoding="utf-8")
        return path

    return write


def test_a_wrong_output_is_noticed(page):
    wrong = page(
        "One\n\n```python\na = 1\n```\n\n```python\nprint(a + 1)\n```\n\n```text\n3\n```\n"
    )
    with pytest.raises(AssertionError, match=r"line 7 prints\s+2\s"):
        run(wrong, parse(wrong))


def test_an_error_names_the_line_of_the_page(page):
    failing = page("One\n\n```python\na = 1\n1 / 0\n```\n")
    with pytest.raises(ZeroDivisionError) as caught:
        run(failing, parse(failing))
    assert caught.traceback[-1].lineno + 1 == 5


def test_other_blocks_do_not_run(page):
    others = page("```bash\nfalse\n```\n\n```\n1 / 0\n```\n")
    assert python_blocks(parse(others)) == []


def test_broken_links_are_noticed(page):
    text = "# A title, with words\n\n[a](#a-title-with-words) [b](#other) [c](page.md) [d](no.md)\n"
    text += "![e](no.png) [f](https://example.org/no) `[g](not-a-link.md)`\n"
    broken = page(text)
    assert broken_links(broken, parse(broken)) == ["#other", "no.md", "no.png"]
