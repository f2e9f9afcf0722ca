"""The claims ledger on the page: `claim` beside a theorem, `claims-table` on one page.

What a claim is and how its verdict is decided stands in deeplimits.ledger. A ledger
that does not hold together stops the build.
"""

import re
from collections import Counter
from pathlib import Path
from typing import ClassVar

from docutils import nodes
from docutils.parsers.rst import directives
from sphinx.application import Sphinx
from sphinx.errors import ExtensionError
from sphinx.util.docutils import SphinxDirective
from sphinx.util.nodes import make_refnode
from sphinx_design.shared import create_component
from tables import parse, table

from deeplimits import ledger
from deeplimits.intervals import Interval

LEDGER = "book/ledger"
HEADER = ("claim", "expected", "measured", "verdict", "why")
_RAISED = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")
MARKS = {"agrees": "✓", "differs": "≠", "undecided": "?", "not attempted": "○"}


class claim_link(nodes.Inline, nodes.TextElement):
    """A link to the card of a claim; plain text while no page shows that card."""


def _check(app: Sphinx) -> None:
    problems = ledger.check(Path(app.srcdir))
    if problems:
        raise ExtensionError("the ledger does not hold:\n  " + "\n  ".join(problems))
    app.env.claims_rows = {c.id: (c, m) for c, m in ledger.rows(Path(app.srcdir))}


def _depend(directive: SphinxDirective) -> dict:
    source = Path(directive.env.srcdir)
    directive.env.note_dependency(str(source / "book" / "claims.yml"))
    for record in source.glob("book/*.ipynb"):
        directive.env.note_dependency(str(record))
    return directive.env.claims_rows


def _cards(env) -> dict[str, str]:
    """Claim → page that shows its card."""
    if not hasattr(env, "claim_cards"):
        env.claim_cards = {}
    return env.claim_cards


def _typeset(numbers: object) -> str:
    """As text, with powers of ten and a minus sign where the terminal has others; an
    interval that is a point, as one."""
    text = re.sub(
        r"e([+-]\d+)",
        lambda power: "\N{NNBSP}×\N{NNBSP}10" + f"{int(power[1])}".translate(_RAISED),
        re.sub(r"^(\S+) \[\1, \1\]", r"\1", str(numbers)),
    )
    return text.replace("-", "\N{MINUS SIGN}")


def _aligned(interval: Interval) -> str:
    """With as many decimals in each number, where none has an exponent or is whole."""
    texts = [f"{x:.4g}" for x in interval.numbers]
    if not any("e" in text for text in texts):
        places = max(len(text.partition(".")[2]) for text in texts)
        pairs = zip(interval.numbers, texts, strict=True)
        texts = [t if x == int(x) else f"{x:.{places}f}" for x, t in pairs]
    return "{} [{}, {}], ".format(*texts) + str(interval.kind)


def _where(claim: ledger.Claim) -> str:
    """As a sentence begins."""
    return claim.where[:1].upper() + claim.where[1:]


def _mark(claim: ledger.Claim) -> str:
    return f"{MARKS[claim.verdict]}\N{NBSP}{claim.verdict}"


class Claim(SphinxDirective):
    """The card of one claim."""

    required_arguments = 1

    def run(self):
        rows, name = _depend(self), self.arguments[0]
        if name not in rows:
            raise ExtensionError(f"{self.env.docname}: no claim {name!r}.")
        shown = _cards(self.env).setdefault(name, self.env.docname)
        if shown != self.env.docname:
            raise ExtensionError(f"claim {name} has a card in {shown} already.")
        return [self._card(*rows[name])]

    def _card(self, claim, measurement) -> nodes.container:
        """A line, and what it opens to."""
        style = f"claim-{claim.verdict.replace(' ', '-')}"
        options = {"opened": False, "has_title": True, "icon": None, "chevron": None}
        card = create_component(
            "dropdown",
            type="dropdown",
            container_classes=["sd-mb-3", "claim", style],
            title_classes=[],
            body_classes=[],
            **options,
        )
        line = nodes.rubric("", "", ids=[f"claim-{claim.id}"])
        line += nodes.strong("", _mark(claim))
        line += nodes.Text(f" · {_where(claim)}")
        if measurement is not None:
            line += nodes.Text(f" · {_typeset(_aligned(measurement.interval))}")
        card += line  # no link in it: it is what opens
        parse(self, self._text(claim, measurement), card)
        card += self._to_ledger(claim)
        return card

    def _text(self, claim, measurement) -> str:
        cited = "" if claim.paper == "ours" else f" ({{cite:t}}`{claim.paper}`)"
        lines = [claim.statement + cited, ""]
        if measurement is not None:
            expected = _typeset(ledger.bounds(claim.expected))
            lines += [f"* Expected: {expected}, since {claim.expected.why}."]
            if measurement.interval.halves:
                lower, upper = (
                    _typeset(f"{h:.4g}") for h in measurement.interval.halves
                )
                lines += [f"* Over the two halves of the window: {lower} and {upper}."]
            lines += [f"* {_registered(claim)}"]
        return "\n".join([*lines, f"* {claim.reason}"])

    def _to_ledger(self, claim) -> list[nodes.Node]:
        builder, env = self.env.app.builder, self.env
        if LEDGER not in env.found_docs:
            return []
        link = make_refnode(
            *(builder, env.docname, LEDGER, f"ledger-{claim.id}"),
            nodes.Text("in the ledger"),
        )
        return [nodes.paragraph("", "", link)]


def _registered(claim: ledger.Claim) -> str:
    """When the range was written, and how often the data were looked at."""
    looks = "one look" if claim.looks == 1 else f"{claim.looks} looks"
    if claim.registered == "after":
        return f"The range was written after a first number was seen; {looks}."
    return f"The range was written before, in commit {claim.registered}; {looks}."


class ClaimsSummary(SphinxDirective):
    """How many claims of each paper have each verdict, and a place for the filter that
    deeplimits.js makes."""

    def run(self):
        claims = [claim for claim, _ in _depend(self).values()]
        papers = sorted(
            {claim.paper for claim in claims}, key=lambda p: (p == "ours", p)
        )
        counts = Counter((claim.paper, claim.verdict) for claim in claims)

        def cells(name, chosen):
            numbers = [sum(counts[p, v] for p in chosen) for v in ledger.VERDICTS]
            return name, *(str(n or "–") for n in numbers), str(sum(numbers))

        rows = [cells(_source(paper), [paper]) for paper in papers]
        rows.append(cells("all", papers))
        marks = [f"{MARKS[verdict]} {verdict}" for verdict in ledger.VERDICTS]
        box = table(self, ("paper", *marks, "all"), rows, (28, 12, 12, 16, 20, 12))
        return [box, nodes.container(classes=["claims-filter"])]


class ClaimsCount(SphinxDirective):
    """One sentence: how many claims there are, and how they stand."""

    def run(self):
        counts = Counter(claim.verdict for claim, _ in _depend(self).values())
        parts = [f"{counts[name]} {MARKS[name]} {name}" for name in ledger.VERDICTS]
        text = f"Today it holds {counts.total()} claims: {', '.join(parts)}"
        box = nodes.container()
        parse(self, f"{text} ({{doc}}`/{LEDGER}`).", box)
        return box.children


def _source(paper: str) -> str:
    return "ours" if paper == "ours" else f"{{cite:t}}`{paper}`"


class ClaimsTable(SphinxDirective):
    """All claims, or those of one paper."""

    option_spec: ClassVar = {"paper": directives.unchanged}

    def run(self):
        rows = _depend(self).values()
        rows = [r for r in rows if self.options.get("paper", r[0].paper) == r[0].paper]
        if not rows:
            raise ExtensionError(f"{self.env.docname}: no claim of {self.options}.")
        ids = [f"ledger-{claim.id}" for claim, _ in rows]
        cells = [self._cells(*row) for row in rows]
        box = table(self, HEADER, cells, (33, 14, 17, 15, 21), ids)
        _, *body = box.findall(nodes.row)
        for row, (claim, _) in zip(body, rows, strict=True):
            verdict = claim.verdict.replace(" ", "-")
            row["classes"] += [f"claim-{verdict}", f"paper-{claim.paper}"]
            link = claim_link("", claim.id, claim=claim.id)
            row[0].insert(0, nodes.paragraph("", "", link, classes=["claim-id"]))
        return [box]

    def _cells(self, claim, measurement) -> tuple[str, ...]:
        paper = "" if claim.paper == "ours" else f"{{cite:t}}`{claim.paper}`, "
        measured = ""
        if measurement is not None:
            measured = _typeset(_aligned(measurement.interval))
            if self.env.docname != f"book/{claim.source}":
                measured += f" ({{doc}}`{claim.source}`)"
        where = f"{paper}{claim.where}" if paper else _where(claim)
        return (
            f"{where}. {claim.statement}",
            _typeset(ledger.bounds(claim.expected)),
            measured,
            _mark(claim),
            claim.reason,
        )


def link_cards(app: Sphinx, doctree: nodes.document, docname: str) -> None:
    for node in list(doctree.findall(claim_link)):
        name, cards = node["claim"], _cards(app.env)
        text = nodes.literal("", name)
        if name in cards:
            target = (cards[name], f"claim-{name}")
            text = make_refnode(app.builder, docname, *target, text)
        node.replace_self(text)


def forget(app: Sphinx, env, docname: str) -> None:
    cards = _cards(env)
    env.claim_cards = {name: page for name, page in cards.items() if page != docname}


def complete(app: Sphinx, env) -> None:
    """Each attempted claim shows beside its theorem."""
    rows = env.claims_rows.values()
    missing = [c.id for c, _ in rows if c.attempted and c.id not in _cards(env)]
    if missing:
        raise ExtensionError(f"claims without a card on any page: {missing}.")


def setup(app: Sphinx) -> dict:
    app.add_node(claim_link)
    app.connect("builder-inited", _check)
    app.connect("env-purge-doc", forget)
    app.connect("env-check-consistency", complete)
    app.connect("doctree-resolved", link_cards)
    app.add_directive("claim", Claim)
    app.add_directive("claims-count", ClaimsCount)
    app.add_directive("claims-summary", ClaimsSummary)
    app.add_directive("claims-table", ClaimsTable)
    return {"parallel_read_safe": False, "parallel_write_safe": True}
