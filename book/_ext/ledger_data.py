"""The ledger as data, and the table of errata that follows from it."""

import json
import math
from pathlib import Path

from docutils import nodes
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxDirective
from tables import parse, table

from deeplimits import ledger

SCHEMA = Path(__file__).with_name("ledger.schema.json")
CORRECTED = "- Corrected: "


def _finite(number: float) -> float | None:
    """JSON has no infinity: a side that is open is null."""
    return number if math.isfinite(number) else None


def _interval(interval) -> dict:
    value, low, high = (_finite(float(number)) for number in interval.numbers)
    halves = interval.halves
    return {
        **{"value": value, "low": low, "high": high, "kind": interval.kind.value},
        "halves": None if halves is None else [_interval(half) for half in halves],
    }


def _commit(root: Path, record: str) -> str:
    text = (root / "book" / f"{record}.ipynb").read_text("utf-8")
    return json.loads(text)["metadata"]["deeplimits"]["provenance"]["commit"]


def entry(root: Path, claim: ledger.Claim, found: ledger.Measurement | None) -> dict:
    """One claim as JSON has it."""
    keys = ("id", "paper", "where", "kind", "tag", "statement", "verdict", "reason")
    data = {key: getattr(claim, key) for key in (*keys, "registered", "looks")}
    data["expected"] = data["measured"] = None
    if (expected := claim.expected) is not None:
        sides = {"low": _finite(expected.low), "high": _finite(expected.high)}
        data["expected"] = sides | {"why": expected.why}
    if found is not None:
        where = {"record": found.source, "commit": _commit(root, found.source)}
        data["measured"] = _interval(found.interval) | where
    return data


def document(root: Path) -> dict:
    """The whole ledger, as `ledger.schema.json` describes it."""
    claims = [entry(root, *row) for row in ledger.rows(root)]
    return {"$schema": SCHEMA.name, "version": 1, "claims": claims}


def corrections(changelog: str) -> list[tuple[str, str]]:
    """(version, what) for each entry of a changelog that begins with "Corrected:"."""
    found, version, lines = [], "", changelog.splitlines()
    for number, line in enumerate(lines):
        if line.startswith("## "):
            version = line[3:].split()[0]
        if line.startswith(CORRECTED):
            rest = lines[number + 1 :]
            more = [text for text in rest if not text.startswith("  ")]
            end = rest.index(more[0]) if more else len(rest)
            text = " ".join(t.strip() for t in (line[len(CORRECTED) :], *rest[:end]))
            found.append((version, text))
    return found


class Errata(SphinxDirective):
    """What the changelog corrects, and what the ledger says of papers' numbers."""

    def run(self):
        root = Path(self.env.srcdir)
        for name in ("CHANGELOG.md", "book/claims.yml"):
            self.env.note_dependency(str(root / name))
        ours = corrections((root / "CHANGELOG.md").read_text("utf-8"))
        box = nodes.container()
        if ours:
            box += table(self, ("version", "corrected"), ours, (12, 88))
        else:
            parse(self, "No correction of a published version so far.", box)
        return [box]


class Differing(SphinxDirective):
    """The claims of papers that differ from what was measured."""

    def run(self):
        self.env.note_dependency(str(Path(self.env.srcdir) / "book" / "claims.yml"))
        rows = [
            (f"{{cite:t}}`{c.paper}`, {c.where}", c.statement, c.reason)
            for c, _ in ledger.rows(Path(self.env.srcdir))
            if c.verdict == "differs" and c.paper != "ours"
        ]
        return [table(self, ("where", "claim", "why it differs"), rows, (22, 39, 39))]


def setup(app: Sphinx) -> dict:
    app.add_directive("errata", Errata)
    app.add_directive("differing-claims", Differing)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
