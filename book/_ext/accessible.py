"""Names and roles that a screen reader needs and that other extensions leave out.

What opens says what it opens: a bar of code names the figure that the code draws, or
its section. (Buttons that scripts make are named by `deeplimits.js`.) And no line
begins with the stop that ends a formula: what touches a short one stays with it.
"""

import re
from collections import Counter

from docutils import nodes
from myst_nb.sphinx_ import HideCodeCellNode
from sphinx.application import Sphinx

SHORT = 24  # characters of TeX, a name one of them: half a line of a phone


def _whole(text: str) -> str:
    """Kept together, unless it may be wider than what is around it."""
    seen = re.sub(r"\\[a-zA-Z]+", "x", re.sub(r"<[^>]*>", "", text))
    short = len(seen) <= SHORT
    return f'<span class="whole">{text}</span>' if short else text


# Of the body: pattern and replacement.
MENDED = (
    # the text of the bar is its name
    (re.compile(r'<summary aria-label="Toggle hidden content">'), "<summary>"),
    # the head of a column without a name is no head
    (re.compile(r"<th\b([^>]*)>(?:\s|<p>|</p>)*</th>"), r"<td\1></td>"),
    # an entry of a list; the older role is withdrawn
    (re.compile(r'role="doc-biblioentry"'), 'role="listitem"'),
    # a browser breaks a line on both sides of a formula, also before its full stop
    (
        re.compile(r'([(\[“]*)(<span class="math [^>]*>[^<]*</span>)([^\s<]*)'),
        lambda m: _whole(m[0]) if m[1] or m[3] else m[0],
    ),
)


def mend(app: Sphinx, page, template, context, doctree) -> None:
    for pattern, replacement in MENDED if "body" in context else ():
        context["body"] = pattern.sub(replacement, context["body"])


def _figure(cell: nodes.Element, numbers: dict) -> str | None:
    """The number of the figure that a cell draws."""
    for figure in cell.findall(nodes.figure):
        for name in figure["ids"]:
            if name in numbers:
                return ".".join(map(str, numbers[name]))
    return None


def _section(cell: nodes.Element) -> str:
    node = cell.parent
    while not isinstance(node, nodes.section):
        node = node.parent
    title = node[node.first_child_matching_class(nodes.title)]
    return " ".join("…" if isinstance(n, nodes.math) else n.astext() for n in title)


def name_code(app: Sphinx, doctree: nodes.document, page: str) -> None:
    numbers = app.env.toc_fignumbers.get(page, {}).get("figure", {})
    used = Counter()
    for cell in doctree.findall(nodes.container):
        if cell.get("nb_element") != "cell_code":
            continue
        for bar in cell.findall(HideCodeCellNode):
            number = _figure(cell, numbers)
            what = f"of Fig. {number}" if number else f"in “{_section(cell)}”"
            used[what] += 1
            again = f", {used[what]}" if used[what] > 1 else ""
            bar["prompt_show"] = f"Show code {what}{again}"
            bar["prompt_hide"] = f"Hide code {what}{again}"


def setup(app: Sphinx) -> dict:
    app.connect("doctree-resolved", name_code)
    app.connect("html-page-context", mend)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
