"""Links from every name of the library in the text to its place in the reference."""

from typing import Any

from docutils import nodes
from sphinx import addnodes
from sphinx.application import Sphinx
from sphinx.util.nodes import make_refnode


def setup(app: Sphinx) -> dict[str, Any]:
    app.connect("doctree-resolved", link_names)
    return {"parallel_read_safe": True, "parallel_write_safe": True}


def link_names(app: Sphinx, doctree: nodes.document, docname: str) -> None:
    objects = app.env.domains.python_domain.objects
    inside = (nodes.reference, nodes.title, addnodes.desc_signature)
    # In the reference of a module its own names come without it.
    folder, _, page = docname.rpartition("/")
    module = f"jbn.{page}".removesuffix(".jbn") if folder == "docs/reference" else ""
    for literal in list(doctree.findall(nodes.literal)):
        name = literal.astext().partition("(")[0]
        found = next((each for each in (name, f"{module}.{name}") if each in objects), None)
        if found is None or any(isinstance(parent, inside) for parent in parents(literal)):
            continue
        place = objects[found]
        link = make_refnode(
            app.builder, docname, place.docname, place.node_id, literal.deepcopy(), found
        )
        literal.replace_self(link)


def parents(node: nodes.Node) -> Any:
    while node := node.parent:
        yield node
