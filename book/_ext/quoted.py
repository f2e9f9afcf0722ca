"""Measured numbers that the prose and alternative texts quote from the record.

Alternative texts take them in braces, `{slope:.2f}`; in the prose the glued numbers get
a minus sign where Python writes a hyphen, and a power of ten where it writes an `e`.
"""

import re
from pathlib import Path

from docutils import nodes
from sphinx.application import Sphinx
from sphinx.errors import ExtensionError

from deeplimits import ledger

FIELD = re.compile(r"\{([A-Za-z][\w-]*)(?::([^{}]*))?\}")
NUMBER = re.compile(r"(-?[\d.]+)(?:e([-+]\d+))?")


def fill(alt: str, values: dict, where: str) -> str:
    """Put glued values into the braces; an unknown name stops the build."""

    def value(match: re.Match) -> str:
        name, spec = match[1], match[2] or ""
        if name not in values:
            raise ExtensionError(
                f"{where}: the alt text quotes {name!r}, which the record does not "
                f"glue; it has {sorted(values)}."
            )
        return format(values[name], spec)

    return FIELD.sub(value, alt)


def fill_page(app: Sphinx, doctree: nodes.document) -> None:
    path = Path(app.env.doc2path(app.env.docname))
    if path.suffix != ".ipynb":
        return
    values = ledger.values(path)
    for image in doctree.findall(nodes.image):
        if "{" in image.get("alt", ""):
            image["alt"] = fill(image["alt"], values, app.env.docname)


def signed(text: str) -> nodes.Text:
    return nodes.Text(text.replace("-", "\N{MINUS SIGN}"))


def number(text: str) -> list[nodes.Node] | None:
    """`-1.4e-03` as it is printed in a book; `None` for what is no number."""
    if not (match := NUMBER.fullmatch(text)):
        return None
    factor, power = match.groups()
    if power is None:
        return [signed(factor)]
    ten = nodes.superscript("", "", signed(str(int(power))))
    times = "\N{NO-BREAK SPACE}\N{MULTIPLICATION SIGN}\N{NO-BREAK SPACE}10"
    before = nodes.Text("10") if factor == "1" else signed(factor + times)
    return [before, ten]


def typeset(app: Sphinx, doctree: nodes.document, page: str) -> None:
    for quoted in doctree.findall(nodes.inline):
        if "pasted-text" in quoted["classes"] and (set_ := number(quoted.astext())):
            quoted.children = set_


def setup(app: Sphinx) -> dict:
    app.connect("doctree-read", fill_page)
    app.connect("doctree-resolved", typeset)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
