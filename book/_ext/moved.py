"""Old addresses that still lead somewhere: sections that have moved to another page.

`book/moved.yml` lists, for a page, anchors that it once had and the pages that have
them today (`anchor: page` or `anchor: page#other`). A page with such a list carries it,
and `deeplimits.js` forwards a reader who comes for one of them.
"""

import json
from pathlib import Path

import yaml
from sphinx.application import Sphinx
from sphinx.errors import ExtensionError


def read(source: str | Path) -> dict[str, dict[str, str]]:
    """Page → anchor → where it is now."""
    path = Path(source) / "book" / "moved.yml"
    return yaml.safe_load(path.read_text(encoding="utf-8")) if path.is_file() else {}


def address(anchor: str, where: str) -> str:
    """`page.html#anchor`, relative to the folder of the book's pages."""
    page, _, other = where.partition("#")
    return f"{page}.html#{other or anchor}"


def check(app: Sphinx) -> None:
    moved = read(app.srcdir)
    pages = {*moved, *(w.partition("#")[0] for m in moved.values() for w in m.values())}
    known = {path.stem for path in Path(app.srcdir).glob("book/*.md")}
    if missing := sorted(pages - known):
        raise ExtensionError(f"moved.yml names pages that are not there: {missing}.")


def add_list(app: Sphinx, page, template, context, doctree) -> None:
    anchors = read(app.srcdir).get(page.removeprefix("book/"), {})
    if anchors and "body" in context:
        addresses = {name: address(name, where) for name, where in anchors.items()}
        text = json.dumps(addresses).replace("<", "\\u003c")
        script = f'<script type="application/json" id="moved">{text}</script>'
        context["body"] += script


def setup(app: Sphinx) -> dict:
    app.connect("builder-inited", check)
    app.connect("html-page-context", add_list)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
