"""Pages made of executed records: which file is the page, and where it comes from.

The record `NAME.ipynb` is the page; its source `NAME.md` is left out. Each record ends
in a line of provenance; the directive `status-table` collects these lines.
"""

import json
from pathlib import Path

from docutils import nodes
from sphinx.application import Sphinx
from sphinx.errors import ExtensionError
from sphinx.util.docutils import SphinxDirective
from tables import table

HEADER = (
    *("page", "version", "commit", "profile", "seed", "device", "dtype"),
    *("time (s)", "peak (MiB)"),
)


def records(source: str | Path) -> list[Path]:
    return sorted(Path(source).glob("book/*.ipynb"))


def leave_out_sources(app: Sphinx, config) -> None:
    twins = [path.with_suffix(".md") for path in records(app.srcdir)]
    config.exclude_patterns += [
        twin.relative_to(app.srcdir).as_posix() for twin in twins if twin.is_file()
    ]


def provenance(path: Path) -> dict:
    metadata = json.loads(path.read_text(encoding="utf-8"))["metadata"]
    if "provenance" not in metadata.get("deeplimits", {}):
        raise ExtensionError(f"{path.name} has no provenance: run `make execute`.")
    return metadata["deeplimits"]["provenance"]


def sentence(p: dict) -> str:
    return (
        f"Executed with deeplimits {p['version']} at commit {p['commit']}: "
        f"profile {p['profile']}, seed {p['seed']}, {p['device']}, {p['dtype']}; "
        f"{p['wall_seconds']} s, peak memory {p['peak_mib']} MiB."
    )


def add_footer(app: Sphinx, doctree: nodes.document) -> None:
    path = Path(app.env.doc2path(app.env.docname))
    if path.suffix != ".ipynb":
        return
    footer = nodes.container(classes=["provenance"])
    footer += nodes.paragraph("", sentence(provenance(path)))
    sections = list(doctree.findall(nodes.section))
    (sections[0] if sections else doctree).append(footer)


def _row(path: Path) -> tuple[str, ...]:
    p = provenance(path)
    keys = ("version", "commit", "profile", "seed", "device", "dtype")
    keys += ("wall_seconds", "peak_mib")
    return f"{{doc}}`{path.stem}`", *(str(p[key]) for key in keys)


class StatusTable(SphinxDirective):
    """One row for each record that the book shows."""

    def run(self):
        shown = [p for p in records(self.env.srcdir) if self._in_book(p)]
        for path in shown:
            self.env.note_dependency(str(path))
        if not shown:
            return [nodes.paragraph("", "No chapter has been recorded yet.")]
        rows = [_row(path) for path in shown]
        return [table(self, HEADER, rows, (20, 10, 15, 10, 8, 9, 10, 8, 10))]

    def _in_book(self, path: Path) -> bool:
        return f"book/{path.stem}" in self.env.found_docs


def setup(app: Sphinx) -> dict:
    app.connect("config-inited", leave_out_sources)
    app.connect("doctree-read", add_footer)
    app.add_directive("status-table", StatusTable)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
