"""A table whose cells are MyST: what the generated pages are made of."""

from docutils import nodes
from docutils.statemachine import StringList
from sphinx.util.docutils import SphinxDirective


def parse(directive: SphinxDirective, text: str, parent: nodes.Element) -> None:
    """Parse MyST text into `parent`."""
    lines = StringList(text.splitlines(), source=directive.env.docname)
    directive.state.nested_parse(lines, directive.content_offset, parent)


def _row(directive, cells, identifier=None) -> nodes.row:
    row = nodes.row(ids=[identifier] if identifier else [])
    for text in cells:
        entry = nodes.entry()
        parse(directive, text, entry)
        row += entry
    return row


def table(directive, header, rows, widths, identifiers=None) -> nodes.container:
    """A table in a box that scrolls sideways where the screen is narrow."""
    identifiers = identifiers or [None] * len(rows)
    group = nodes.tgroup(cols=len(header))
    group += [nodes.colspec(colwidth=width) for width in widths]
    group += nodes.thead("", _row(directive, header))
    body = nodes.tbody()
    for cells, identifier in zip(rows, identifiers, strict=True):
        body += _row(directive, cells, identifier)
    group += body
    box = nodes.container(classes=["scroll-x", "generated-table"])
    box += nodes.table("", group, classes=["colwidths-given"])
    return box
