"""The pages beside their HTML: as Markdown, as notebooks, and listed in llms.txt."""

import json
import re
from pathlib import Path
from typing import Any

from docstrings import PLACE, expand
from docutils import nodes
from docutils.utils.math import MathError
from docutils.utils.math.latex2mathml import tex2mathml
from notebook import notebook
from sphinx import addnodes
from sphinx.application import Sphinx
from sphinx.util import logging
from sphinx.util.osutil import relative_uri

logger = logging.getLogger(__name__)
_SUMMARY = "Batch normalization in JAX: small pure functions, and layers in the place of Flax's."
_START = """<!doctype html>
<html lang="en">
<title>jbn</title>
<meta http-equiv="refresh" content="0; url={0}">
<main><h1><a href="{0}">jbn</a></h1></main>
</html>
"""


def setup(app: Sphinx) -> dict[str, Any]:
    app.connect("source-read", on_source_read)
    app.connect("env-get-outdated", outdated)
    app.connect("doctree-resolved", open_pages)
    app.connect("build-finished", write_beside)
    # MathML, which browsers draw by themselves: no script, and nothing from another host.
    app.add_html_math_renderer("mathml", (inline_math, None), (block_math, None))
    return {"parallel_read_safe": True, "parallel_write_safe": True}


def on_source_read(app: Sphinx, docname: str, source: list[str]) -> None:
    """Fills in the reference, and ends each page with links to it in other forms."""
    name = docname.rpartition("/")[2]
    forms = f'<a href="{name}.md">Markdown</a>'
    if notebook(source[0]):
        forms += f', <a href="{name}.ipynb">notebook</a>'
    source[0] = f'{expand(source[0])}\n\n<p class="forms">This page as {forms}</p>\n'


def outdated(app: Sphinx, env: Any, *_: Any) -> list[str]:
    """Returns the pages of the reference: they depend on code, so every build reads them anew."""
    return [name for name in env.found_docs if PLACE.search(source_of(app, name))]


def open_pages(app: Sphinx, doctree: nodes.document, docname: str) -> None:
    """Has a link to a page that is not Sphinx's, such as the atlas, open it and not save it."""
    here = app.builder.get_target_uri(docname)
    for link in list(doctree.findall(addnodes.download_reference)):
        if link["reftarget"].endswith(".html"):
            place = relative_uri(here, f"_downloads/{link['filename']}")
            link.replace_self(nodes.reference("", "", *link.children, refuri=place, internal=True))


def source_of(app: Sphinx, docname: str) -> str:
    return Path(app.env.doc2path(docname)).read_text(encoding="utf-8")


def write_beside(app: Sphinx, exception: Exception | None) -> None:
    if exception or app.builder.name != "html":
        return
    for docname in app.env.found_docs:
        text, path = source_of(app, docname), app.outdir / docname
        path.with_suffix(".md").write_text(expand(text), encoding="utf-8")
        if (made := notebook(text)) is not None:
            path.with_suffix(".ipynb").write_text(json.dumps(made, indent=1), encoding="utf-8")
    (app.outdir / "llms.txt").write_text(llms(app), encoding="utf-8")
    start = app.builder.get_target_uri(app.config.root_doc)
    (app.outdir / "index.html").write_text(_START.format(start), encoding="utf-8")


def llms(app: Sphinx) -> str:
    """Lists the pages for a language model (llmstxt.org)."""
    lines = ["# jbn", "", f"> {_SUMMARY}", ""]
    for tree in app.env.get_doctree(app.config.root_doc).findall(addnodes.toctree):
        lines += [f"## {tree['caption']}", ""]
        for title, docname in tree["entries"]:
            lines.append(f"- [{title or app.env.titles[docname].astext()}]({docname}.md)")
        lines.append("")
    return "\n".join(lines)


def inline_math(translator: Any, node: nodes.math) -> None:
    translator.body.append(mathml(node))
    raise nodes.SkipNode


def block_math(translator: Any, node: nodes.math_block) -> None:
    translator.body.append(f'<div class="math">{mathml(node)}</div>')
    raise nodes.SkipNode


def mathml(node: nodes.Element) -> str:
    # Commands that docutils does not know, and what it sets under the accent and not under both.
    source = node.astext().replace(r"\dots", r"\ldots")
    source = re.sub(r"(\\(?:hat|bar|tilde) \w)(?=[_^])", r"{\1}", source)
    try:
        return str(tex2mathml(source, as_block=isinstance(node, nodes.math_block)))
    except MathError as error:
        logger.warning("%s In: %s", error, source, location=node)
        return ""
