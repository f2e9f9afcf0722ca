"""Formulas in a line keep the brackets and the punctuation that they touch.

Left alone, a browser may begin a line with the comma behind a formula.
"""

import re

from docutils import nodes
from sphinx.application import Sphinx

BEFORE = re.compile(r"[(\[“]*$")
AFTER = re.compile(r"[,.;:!?)\]”%]+|['’-]\w+|")


def bind(math: nodes.math) -> None:
    """Put the formula, and what it touches, into a span that does not break."""
    line = math.parent
    at = line.index(math)
    before = line[at - 1] if at > 0 else ""
    after = line[at + 1] if at + 1 < len(line) else ""
    opens = BEFORE.search(before)[0] if isinstance(before, str) else ""
    closes = AFTER.match(after)[0] if isinstance(after, str) else ""
    if opens:
        line[at - 1] = nodes.Text(before.removesuffix(opens))
    if closes:
        line[at + 1] = nodes.Text(after.removeprefix(closes))
    if opens or closes:
        bound = nodes.inline("", "", classes=["unbroken"])
        line[at] = bound
        bound += [nodes.Text(opens), math, nodes.Text(closes)]


def bind_all(app: Sphinx, doctree: nodes.document, page: str) -> None:
    for math in list(doctree.findall(nodes.math)):
        bind(math)


def setup(app: Sphinx) -> dict:
    app.connect("doctree-resolved", bind_all)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
