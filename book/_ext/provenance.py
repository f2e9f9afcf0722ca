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

COLUMNS = {
    "version": "version",
    "commit": "commit",
    "profile": "profile",
    "seed": "seed",
    "device": "device",
    "dtype": "dtype",
    "wall_seconds": "time (s)",
    "peak_mib": "peak (MiB)",
}

SHARED = ("version", "profile", "seed", "device")  # where all pages agree: a sentence


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


class StatusTable(SphinxDirective):
    """One row for each record that the book shows, in the order of the book, and a
    sentence on what is the same in all of them."""

    def run(self):
        shown = self._in_order()
        for path in shown:
            self.env.note_dependency(str(path))
        if not shown:
            return [nodes.paragraph("", "No chapter has been recorded yet.")]
        found = [{key: str(provenance(p)[key]) for key in COLUMNS} for p in shown]
        same = [key for key in SHARED if len({row[key] for row in found}) == 1]
        keys = [key for key in COLUMNS if key not in same]
        rows = [
            (f"{{doc}}`{path.stem}`", *(row[key] for key in keys))
            for path, row in zip(shown, found, strict=True)
        ]
        header = "page", *(COLUMNS[key] for key in keys)
        box = table(self, header, rows, (40, *(60 // len(keys) for _ in keys)))
        alike = ", ".join(f"{COLUMNS[key]} {found[0][key]}" for key in same)
        return [nodes.paragraph("", f"All pages: {alike}.")] * bool(same) + [box]

    def _in_order(self) -> list[Path]:
        """As the table of contents has them; what it has not is not in the book."""
        sites = self.config.external_site_map
        order = {name: n for n, name in enumerate(sites)}
        shown = [p for p in records(self.env.srcdir) if f"book/{p.stem}" in order]
        return sorted(shown, key=lambda path: order[f"book/{path.stem}"])


def setup(app: Sphinx) -> dict:
    app.connect("config-inited", leave_out_sources)
    app.connect("doctree-read", add_footer)
    app.add_directive("status-table", StatusTable)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
