"""The whole book as one page, of which `tools/pdf.py` makes a PDF.

Sphinx draws the nodes of a builder without drawings of its own like those of `html`;
sphinx-exercise has some for `singlehtml`, so that those of all others are missing.
"""

from sphinx.application import Sphinx


def lend_drawings(app: Sphinx) -> None:
    if app.builder.name == "singlehtml":
        drawings = app.registry.translation_handlers
        own = drawings.get("singlehtml", {})
        drawings["singlehtml"] = {**drawings.get("html", {}), **own}
        # On paper nobody opens a menu, and a twin of each formula takes gigabytes.
        options = app.config.mathjax3_config.setdefault("options", {})
        options |= {"enableMenu": False, "enableAssistiveMml": False}


def setup(app: Sphinx) -> dict:
    app.connect("builder-inited", lend_drawings)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
