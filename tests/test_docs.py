"""The documentation runs: its Python blocks, the output shown under them, and its links.

A block marked `python` is executed; the blocks of one page share a namespace, from top to bottom.
A block marked `text` straight after it is what it prints, or, where that begins as `ValueError: `
does, what it raises. Line breaks and `...` are free there.
"""

import ast
import contextlib
import doctest
import importlib
import inspect
import io
import re
from pathlib import Path

import jax
import pytest
from docstrings import PLACE, contents, expand
from markdown_it.token import Token
from notebook import notebook, python_blocks
from notebook import parse as parse_text

ROOT = Path(__file__).parent.parent
SITE = ROOT / "build" / "site"
PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").glob("**/*.md"), *ROOT.glob("examples/*.md")])


ERROR = re.compile(r"\w+Error: ")


def name(page: Path) -> str:
    return page.relative_to(ROOT).as_posix()


def parse(page: Path) -> list[Token]:
    return parse_text(page.read_text(encoding="utf-8"))


def run(page: Path, tokens: list[Token]) -> None:
    namespace = {"__name__": name(page)}
    for code, output in python_blocks(tokens):
        assert code.map is not None
        # Blank lines in front make a traceback name the page's own line.
        source = "\n" * (code.map[0] + 1) + code.content
        printed = io.StringIO()
        with contextlib.redirect_stdout(printed):
            try:
                exec(compile(source, str(page), "exec"), namespace)
            except Exception as error:
                if output is None or not ERROR.match(output.content):
                    raise
                printed.write(f"{type(error).__name__}: {error}\n")
        flags = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE
        shown = printed.getvalue()
        if output is not None:
            assert doctest.OutputChecker().check_output(output.content, shown, flags), (
                f"{name(page)}, line {code.map[0] + 1} prints\n{shown}"
                f"and the page shows\n{output.content}"
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


@pytest.mark.skipif(not SITE.exists(), reason="the site is not built: make docs")
def test_links_of_the_site_open_pages_and_do_not_save_them():
    pages = {path.name: path.read_text(encoding="utf-8") for path in SITE.rglob("*.html")}
    assert any('atlas.html">' in text for text in pages.values())
    saved = r'<a [^>]*download=""[^>]*\.html"'
    assert [name for name, text in pages.items() if re.search(saved, text)] == []


def test_the_pages_with_code_are_found():
    with_code = {name(page) for page in PAGES if python_blocks(parse(page))}
    assert with_code >= {"README.md", "docs/math.md", "docs/tutorial.md", "docs/conventions.md"}


# What raises there is on the page of errors: the functions and the two layers.
EXPLAINED = ("_*.py", "_numerics/*.py", "_variants/*.py", "*/_batch_norm.py")


def raised(path: Path) -> list[str]:
    """The longest plain text in each message that a file raises with."""
    found = []
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Raise) and isinstance(node.exc, ast.Call):
            parts = [str(n.value) for n in ast.walk(node.exc) if isinstance(n, ast.Constant)]
            found.append(max(parts, key=len).strip())
    return [text for text in found if " " in text]  # a class that builds its own has none here


def test_errors_are_on_their_page():
    page = " ".join((ROOT / "docs" / "errors.md").read_text(encoding="utf-8").split())
    sites = [path for pattern in EXPLAINED for path in (ROOT / "jbn").glob(pattern)]
    messages = {message for path in sites for message in raised(path)}
    assert len(messages) > 30
    missing = {message for message in messages if " ".join(message.split()) not in page}
    assert not missing, "add a block that raises it to docs/errors.md"


@pytest.mark.parametrize(
    "module", ["jbn", "jbn.linen", "jbn.nnx", "jbn.convert", "jbn.diagnostics"]
)
def test_the_reference_has_every_public_name(module):
    page = ROOT / "docs" / "reference" / f"{module.rpartition('.')[2]}.md"
    text = page.read_text(encoding="utf-8")
    assert PLACE.findall(text) == [module]
    imported = importlib.import_module(module)
    public = {
        name
        for name, value in vars(imported).items()
        if not name.startswith("_") and not inspect.ismodule(value)
    }
    assert {name for names in contents(imported).values() for name in names} == public
    made = expand(text)
    assert set(re.findall(rf"^:+{{py:\w+}} {module}\.(\w+)(?:\(|$)", made, re.M)) == public
    # Sections and examples of docstrings are Markdown there.
    assert not re.search(r"^\s*(Args|Attributes|Returns|Raises):$", made, re.M)
    assert made.count("```pycon") == len(re.findall(r"^>>>.*(?:\n.+)*", made, re.M))


def test_a_notebook_holds_the_page():
    text = (ROOT / "docs" / "tutorial.md").read_text(encoding="utf-8")
    made = notebook(text)
    assert made is not None
    cells = made["cells"]
    code = [cell for cell in cells if cell["cell_type"] == "code"]
    blocks = python_blocks(parse_text(text))
    assert [cell["source"] + "\n" for cell in code] == [block.content for block, _ in blocks]
    assert code[0]["outputs"][0]["text"] == "[20160. 50170. 80180.]\n"
    assert cells[0]["source"].startswith("# Tutorial")
    assert "20160" not in "".join(cell["source"] for cell in cells)
    assert len({cell["id"] for cell in cells}) == len(cells)
    assert notebook("# No code\n") is None


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


def test_an_error_is_raised_or_noticed(page):
    block = "```python\n{}\n```\n\n```text\nValueError: no ...\n```\n"
    right = page(block.format('raise ValueError("no three")'))
    run(right, parse(right))
    for wrong in ("3", 'raise ValueError("three")', 'raise TypeError("no three")'):
        failing = page(block.format(wrong))
        with pytest.raises(AssertionError, match="line 1 prints"):
            run(failing, parse(failing))


def test_other_blocks_do_not_run(page):
    others = page("```bash\nfalse\n```\n\n```\n1 / 0\n```\n")
    assert python_blocks(parse(others)) == []


def test_broken_links_are_noticed(page):
    text = "# A title, with words\n\n[a](#a-title-with-words) [b](#other) [c](page.md) [d](no.md)\n"
    text += "![e](no.png) [f](https://example.org/no) `[g](not-a-link.md)`\n"
    broken = page(text)
    assert broken_links(broken, parse(broken)) == ["#other", "no.md", "no.png"]
