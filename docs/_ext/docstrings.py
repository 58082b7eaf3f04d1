"""The reference of a module as Markdown, from its docstrings."""

import ast
import importlib
import inspect
import re
import textwrap
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import Any

ROOT = Path(__file__).parent.parent.parent
PLACE = re.compile(r"^<!-- reference: ([\w.]+) -->$", re.MULTILINE)
_SECTION = re.compile(
    r"^(Args|Attributes|Returns|Raises):\n((?:[ ]+.*\n?|\n(?=[ ]))+)", re.MULTILINE
)
_TITLES = {"Args": "Arguments"}


def expand(page: str) -> str:
    """Puts the reference of a module in the place of each `<!-- reference: MODULE -->`."""
    return PLACE.sub(lambda found: reference(found[1]), page)


def reference(name: str) -> str:
    module = importlib.import_module(name)
    parts = [markdown(inspect.getdoc(module) or "")]
    for title, names in contents(module).items():
        parts += [f"## {title}"] if title else []
        parts += [entry(name, each, getattr(module, each)) for each in names]
    return "\n\n".join(parts)


def contents(module: ModuleType) -> dict[str, list[str]]:
    """Returns the public names of a module, grouped as its source groups them: by comments."""
    source = inspect.getsource(module)
    titles = {
        at: line[2:].rstrip(".")
        for at, line in enumerate(source.splitlines())
        if line.startswith("# ")
    }
    groups: dict[str, list[str]] = {}
    for node in ast.parse(source).body:
        if isinstance(node, ast.ImportFrom) and str(node.module).startswith("jbn"):
            above = max((at for at in titles if at < node.lineno), default=None)
            title = "" if above is None else titles[above]
            groups.setdefault(title, []).extend(each.asname or each.name for each in node.names)
    return groups


def entry(module: str, name: str, value: Any) -> str:
    """Writes the directive that documents one public name, the methods of a class inside it."""
    full = f"{module}.{name}"
    if inspect.isfunction(value):
        return directive(
            "function", full + signature(value), documentation(value) + uses(module, name)
        )
    if not inspect.isclass(value):  # a type alias
        return directive("data", full, f"`{value}`".replace("jbn._types.", ""))
    methods = [
        directive(
            "method",
            f"{full}.{key}{signature(inspect.unwrap(getattr(value, key)))}",
            documentation(method),
        )
        for key, method in vars(value).items()
        if (not key.startswith("_") or key == "__call__")
        and inspect.isroutine(method)
        and method.__doc__
    ]
    body = "\n\n".join([documentation(value) + uses(module, name), *methods])
    kind = "exception" if issubclass(value, Exception) else "class"
    return directive(kind, full + signature(value), body)


def directive(kind: str, argument: str, body: str) -> str:
    fence = "::::" if kind == "method" else ":::::"
    return f"{fence}{{py:{kind}}} {argument}\n\n{body}\n\n{fence}"


def signature(value: Any) -> str:
    """Returns the arguments as the source writes them; those of a class without annotations."""
    if not inspect.isclass(value):
        node = ast.parse(textwrap.dedent(inspect.getsource(value))).body[0]
        assert isinstance(node, ast.FunctionDef)
        node.args.args = [each for each in node.args.args if each.arg not in ("self", "cls")]
        returns = f" -> {ast.unparse(node.returns)}" if node.returns else ""
        return f"({ast.unparse(node.args)}){returns}"
    if getattr(value, "_is_protocol", False):
        return ""
    made = value.__init__ if "__init__" in vars(value) else value.__new__
    arguments = []
    for each in list(inspect.signature(made).parameters.values())[1:]:
        if each.name in ("parent", "name"):  # Linen gives these to every module
            continue
        if each.kind is each.KEYWORD_ONLY and "*" not in arguments:
            arguments.append("*")
        default = each.default
        default = getattr(default, "__name__", None) or default
        shown = default if isinstance(default, str) else repr(default)
        arguments.append(each.name if each.default is each.empty else f"{each.name}={shown}")
    return f"({', '.join(arguments)})"


def documentation(value: Any) -> str:
    return markdown(inspect.getdoc(value) or "")


def markdown(doc: str) -> str:
    """Turns a docstring into Markdown: its sections into lists, its examples into blocks."""
    doc = _SECTION.sub(lambda found: _section(found[1], textwrap.dedent(found[2])), doc)
    return re.sub(r"^>>>.*(?:\n.+)*", r"```pycon\n\g<0>\n```", doc, flags=re.MULTILINE)


def _section(kind: str, text: str) -> str:
    title = f"**{_TITLES.get(kind, kind)}**\n\n"
    if kind == "Returns":
        return f"{title}{text}\n"
    items = re.sub(
        r"^([\w*][\w*, .]*):", lambda found: f"- {_code(found[1])}:", text, flags=re.MULTILINE
    )
    return f"{title}{items}\n"


def _code(names: str) -> str:
    return ", ".join(f"`{name}`" for name in names.split(", "))


def uses(module: str, name: str) -> str:
    """Lists links to the tests and the claims whose code names this."""
    short = f"{module.rpartition('.')[2]}.{name}"
    lines = []
    for title, folder in (("Tests", "tests/jbn"), ("Claims", "experiments/papers/claims")):
        links = [
            f"[{path.name}](/{path.relative_to(ROOT).as_posix()})"
            for path in sorted((ROOT / folder).rglob("*.py"))
            if any(f".{used}".endswith(f".{short}") for used in named_in(path))
        ]
        lines += [f"{title}: {', '.join(links)}."] if links else []
    return "".join(f"\n\n{line}" for line in lines)


@cache
def named_in(path: Path) -> frozenset[str]:
    """Returns what a file imports or takes with a dot from jbn, such as `jbn.linen.fold`."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom):
            found |= {f"{node.module}.{each.name}" for each in node.names}
        elif isinstance(node, ast.Attribute):
            found.add(ast.unparse(node))
    return frozenset(each for each in found if not each.startswith(("flax", "nn.")))
