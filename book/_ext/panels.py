"""Panels side by side, which stack where the screen is narrow.

An image with the class `panels-3` shows three panels of one width (`plots.panels` makes
such figures). Behind it stands each panel alone, a window on the same file; the style
sheet shows either the whole or the windows.
"""

import re
from html import escape

from sphinx.application import Sphinx
from sphinx.errors import ExtensionError

IMAGE = re.compile(r"<img\b[^>]*>")
COUNT = re.compile(r'class="[^"]*\bpanels-(\d+)\b')


def _attribute(tag: str, name: str) -> str:
    found = re.search(rf'\b{name}="([^"]*)"', tag)
    if found is None:
        raise ExtensionError(f"an image of several panels has no {name}: {tag}")
    return found[1]


def windows(tag: str, count: int) -> str:
    """One window for each panel; the first has the alternative text of all."""
    source, alt = _attribute(tag, "src"), _attribute(tag, "alt")
    each = []
    for i in range(count):
        text = alt if i == 0 else escape(f"Panel {i + 1} of {count}, described above.")
        image = f'<img src="{source}" alt="{text}" loading="lazy">'
        style = f"--panels: {count}; --panel: {i}"
        each.append(f'<span class="panel" style="{style}">{image}</span>')
    return "".join(each)


def add_windows(app: Sphinx, page, template, context, doctree) -> None:
    def stacked(match: re.Match) -> str:
        tag = match[0]
        count = COUNT.search(tag)
        return tag + windows(tag, int(count[1])) if count else tag

    if "body" in context:
        context["body"] = IMAGE.sub(stacked, context["body"])


def setup(app: Sphinx) -> dict:
    app.connect("html-page-context", add_windows)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
