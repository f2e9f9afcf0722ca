"""One registry, book/notation.yml, for the notation page and the MathJax macros."""

from pathlib import Path

import yaml
from sphinx.application import Sphinx
from sphinx.errors import ExtensionError
from sphinx.util.docutils import SphinxDirective
from tables import table

FIELDS = {"symbol", "meaning", "code", "shape", "first"}
HEADER = ("symbol", "meaning", "in code", "shape", "first used")


def path(source: str | Path) -> Path:
    return Path(source) / "book" / "notation.yml"


def read(source: str | Path) -> dict:
    registry = yaml.safe_load(path(source).read_text(encoding="utf-8"))
    for entry in registry["symbols"]:
        if set(entry) != FIELDS:
            raise ExtensionError(f"notation.yml: {entry} needs the fields {FIELDS}.")
    return registry


def set_macros(app: Sphinx, config) -> None:
    mathjax = config.mathjax3_config or {}
    tex = mathjax.setdefault("tex", {})
    tex.setdefault("macros", {}).update(read(app.srcdir)["macros"])
    # An unknown macro shall be an error that a test can see, not red letters.
    tex["packages"] = {"[-]": ["noundefined"]}
    # No formula is a tab stop; deeplimits.js makes those stops that scroll.
    mathjax["options"] = {"menuOptions": {"settings": {"inTabOrder": False}}}
    config.mathjax3_config = mathjax


def _code(names: str) -> str:
    return f"`{names}`" if names else ""


class NotationTable(SphinxDirective):
    """The registry as a table."""

    def run(self):
        self.env.note_dependency(str(path(self.env.srcdir)))
        rows = [
            (
                f"${e['symbol']}$",
                e["meaning"],
                _code(e["code"]),
                f"${e['shape']}$" if e["shape"] else "",
                e["first"],
            )
            for e in read(self.env.srcdir)["symbols"]
        ]
        return [table(self, HEADER, rows, (17, 37, 20, 14, 12))]


def setup(app: Sphinx) -> dict:
    app.connect("config-inited", set_macros)
    app.add_directive("notation-table", NotationTable)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
