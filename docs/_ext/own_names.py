"""Link the names in signatures, which are written as our modules write them, to where they are documented.

A signature names many things that are documented elsewhere (Python's own, pydantic's) or nowhere (private ones): those stay plain
text. References that a person wrote into a page or a docstring are not touched, so ``-n -W`` holds them to lead somewhere.
"""

from __future__ import annotations

from typing import Any

from docutils import nodes
from sphinx import addnodes
from sphinx.application import Sphinx
from sphinx.transforms.post_transforms import SphinxPostTransform

ATTRIBUTES = ("attribute", "data", "property")


class SignatureLinks(SphinxPostTransform):
    """Resolves references in signatures and base classes by the last part of the name."""

    default_priority = 5  # before Sphinx's own, which would warn of each

    def run(self, **options: Any) -> None:
        for node in list(self.document.findall(addnodes.pending_xref)):
            if node.get("refdomain") == "py" and (_in_signature(node) or _is_base(node)):
                node.replace_self(self._link(node) or list(node.children))

    def _link(self, node: addnodes.pending_xref) -> nodes.Node | None:
        name = self._documented(str(node["reftarget"]), str(node.get("py:module")))
        if name is None:
            return None
        place = self.env.domains.python_domain.objects[name]
        page = self.app.builder.get_relative_uri(self.env.current_document.docname, place.docname)
        return nodes.reference("", "", *(child.deepcopy() for child in node.children), internal=True, refuri=f"{page}#{name}")

    def _documented(self, target: str, module: str) -> str | None:
        """Choose among documented classes of that name: of the same module, else not of the blocking twin."""
        last = target.rsplit(".", 1)[-1]
        objects = self.env.domains.python_domain.objects
        found = [name for name, entry in objects.items() if name.endswith(f".{last}") and entry.objtype in ("class", "exception")]
        here = [name for name in found if name == f"{module}.{last}" and not target.startswith("_")]
        others = [name for name in found if not name.startswith("sandboxcore.sync.")]
        return next(iter(here or others), None)


def _in_signature(node: nodes.Node | None) -> bool:
    while node is not None:
        if isinstance(node, addnodes.desc_signature):
            return True
        node = node.parent
    return False


def _is_base(node: nodes.Node) -> bool:
    paragraph = node.parent
    return isinstance(paragraph, nodes.paragraph) and paragraph.astext().startswith("Bases: ")


class PlainAttributes:
    """Keeps napoleon from taking "words: more words" in the comment of an attribute for a type and a text."""

    def __init__(self) -> None:
        self._kept: dict[str, list[str]] = {}

    def keep(self, app: Sphinx, what: str, name: str, obj: object, options: Any, lines: list[str]) -> None:
        if what in ATTRIBUTES:
            self._kept[name] = list(lines)

    def restore(self, app: Sphinx, what: str, name: str, obj: object, options: Any, lines: list[str]) -> None:
        if what in ATTRIBUTES:
            lines[:] = self._kept.pop(name)


def readable_defaults(
    app: Sphinx, what: str, name: str, obj: object, options: Any, signature: str | None, returned: str | None
) -> tuple[str | None, str | None]:
    """Put an ellipsis for what pydantic calls ``<factory>``, which is no Python and would spoil the rest of the signature."""
    return (signature.replace("<factory>", "...") if signature else signature), returned


def setup(app: Sphinx) -> dict[str, bool]:
    attributes = PlainAttributes()
    app.connect("autodoc-process-docstring", attributes.keep, priority=100)
    app.connect("autodoc-process-docstring", attributes.restore, priority=900)
    app.connect("autodoc-process-signature", readable_defaults)
    app.add_post_transform(SignatureLinks)
    return {"parallel_read_safe": True}
