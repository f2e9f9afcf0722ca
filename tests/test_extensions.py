"""The book's own Sphinx extensions, on a book of three pages."""

import ast
import json
import shutil
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest
import yaml
from bs4 import BeautifulSoup

from deeplimits import ledger

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "book" / "_ext"))
import api  # noqa: E402
import claims  # noqa: E402

CLAIM = {
    "id": "toy-claim",
    "paper": "marion2024",
    "where": "Proposition 0",
    "kind": "theorem",
    "tag": "T",
    "statement": "The norm $\\norm{x}$ is at most $C/L$.",
    "expected": {"value": -1.0, "tolerance": 0.1, "why": "the bound is $C/L$"},
    "source": "toy",
    "verdict": "agrees",
    "reason": "It does.",
    "registered": "0123abc",
    "looks": 3,
}
WIDE = {"id": "toy-wide", "where": "Proposition 1", "verdict": "undecided"}
WIDE |= {"registered": "after", "looks": 1}


def numbers(value, low, high, **extra):
    return {"value": value, "low": low, "high": high, "kind": "over seeds"} | extra


HALVES = [numbers(-1.04, -1.08, -1.0), numbers(-0.96, -0.99, -0.92)]
MEASURED = {
    "toy-claim": numbers(-1.0, -1.02, -0.98, halves=HALVES),
    "toy-wide": numbers(-1.0, -1.3, -0.7, kind="residuals of one curve"),
}
TOC = {
    "format": "jb-book",
    "root": "book/intro",
    "chapters": [{"file": f"book/{name}"} for name in ("toy", "ledger", "status")],
}
PAGES = {
    "intro": "# Intro\n\n```{claims-count}\n```\n\n```{notation-table}\n```\n",
    "ledger": "# Ledger\n\n```{claims-summary}\n```\n\n```{claims-table}\n```\n"
    "\n```{bibliography}\n```\n",
    "status": "# Status\n\n```{status-table}\n```\n",
    "toy": "The source of the record, which is not a page.\n",
}
MOVED = {"toy": {"old-section": "ledger", "older": "ledger#ledger-toy-claim"}}
CARD = "# Toy\n\nSlope {glue:text}`slope:.2f`, gap {glue:text}`gap:.1e`.\n"
CARD += "\n```{claim} toy-claim\n```\n"
CARD += "\n```{claim} toy-wide\n```"
PROVENANCE = {
    **{"version": "0.1.0", "commit": "abcdef0123+", "profile": "book", "seed": 1},
    **{"device": "cpu", "dtype": "float64", "wall_seconds": 12, "peak_mib": 340},
}
PIXEL = (
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk"
    "+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="
)


def glued(name, value, **metadata):
    scrapbook = {"name": name, "mime_prefix": ledger.PREFIX}
    data = {ledger.PREFIX + "text/plain": repr(value)}
    metadata = {"scrapbook": scrapbook, **metadata}
    return nbformat.v4.new_output("display_data", data, metadata=metadata)


def record(card=CARD, alt="A line of slope {slope:.1f} and more", measured=True):
    """An executed chapter: a card, two numbers, one figure."""
    outputs = [glued("slope", -1.0049), glued("gap", -0.0014)]
    if measured:
        outputs += [glued(k, v, deeplimits={"claim": k}) for k, v in MEASURED.items()]
    outputs += [nbformat.v4.new_output("display_data", {"image/png": PIXEL})]
    mystnb = {"image": {"alt": alt, "classes": "panels-2"}}
    cells = [
        nbformat.v4.new_markdown_cell(card),
        nbformat.v4.new_code_cell(
            "1", outputs=outputs, execution_count=1, metadata={"mystnb": mystnb}
        ),
    ]
    kernel = {"name": "python3", "display_name": "Python 3", "language": "python"}
    metadata = {"kernelspec": kernel, "deeplimits": {"provenance": PROVENANCE}}
    return nbformat.v4.new_notebook(cells=cells, metadata=metadata)


def lay_out(root, claims=(CLAIM, CLAIM | WIDE), moved=MOVED, **options):
    """Write the small book."""
    book = root / "book"
    for name in ("_ext", "_static"):
        shutil.copytree(ROOT / "book" / name, book / name)
    for name in ("references.bib", "notation.yml"):
        shutil.copy(ROOT / "book" / name, book / name)
    shutil.copy(ROOT / "pyproject.toml", root / "pyproject.toml")
    config = yaml.safe_load((ROOT / "_config.yml").read_text())
    config["sphinx"]["config"]["chapter_numbers"] = {}  # they name the real chapters
    (root / "_config.yml").write_text(yaml.safe_dump(config))
    (root / "_toc.yml").write_text(yaml.safe_dump(TOC))
    (book / "claims.yml").write_text(yaml.safe_dump(list(claims)))
    (book / "moved.yml").write_text(yaml.safe_dump(moved))
    for name, text in PAGES.items():
        (book / f"{name}.md").write_text(text)
    nbformat.write(record(**options), book / "toy.ipynb")


def build(root, **options):
    """Build the small book; the exit status and all that was said."""
    lay_out(root, **options)
    tool = Path(sys.executable).with_name("jupyter-book")
    command = [str(tool), "build", str(root), "-W", "-n", "--keep-going"]
    done = subprocess.run(command, capture_output=True, text=True)
    return done.returncode, done.stdout + done.stderr


@pytest.fixture(scope="module")
def pages(tmp_path_factory):
    root = tmp_path_factory.mktemp("book")
    status, said = build(root)
    assert status == 0, said

    def page(name):
        text = (root / "_build" / "html" / "book" / f"{name}.html").read_text("utf-8")
        return BeautifulSoup(text, "html.parser")

    return page


def test_the_card_says_what_the_ledger_says(pages):
    card = pages("toy").find(id="claim-toy-claim")
    text = card.get_text(" ", strip=True)
    assert "Expected: [−1.1, −0.9], since the bound is" in text
    assert "The range was written before, in commit 0123abc; 3 looks." in text
    line = card.find("summary").get_text(" ", strip=True)
    numbers = "−1 [−1.02, −0.98], over seeds"
    assert " ".join(line.split()) == f"✓ agrees · Proposition 0 · {numbers}"
    halves = "halves of the window: −1.04 [−1.08, −1] and −0.96 [−0.99, −0.92]."
    assert halves in text
    assert card.find("a", href="ledger.html#ledger-toy-claim")


def test_an_undecided_claim_has_a_card_of_its_own_and_says_of_what_it_was_measured(
    pages,
):
    card = pages("toy").find(id="claim-toy-wide")
    text = card.get_text(" ", strip=True)
    assert "claim-undecided" in card["class"]
    numbers = "−1 [−1.3, −0.7], residuals of one curve"
    assert f"?\N{NBSP}undecided · Proposition 1 · {numbers}" in text
    assert "The range was written after a first number was seen; one look." in text
    assert "halves" not in text  # there are none
    row = pages("ledger").find(id="ledger-toy-wide")
    text = row.get_text(" ", strip=True)
    assert "claim-undecided" in row["class"]
    assert "−1 [−1.3, −0.7], residuals of one curve ( Toy )" in text


def test_the_table_and_the_card_lead_to_each_other(pages):
    row = pages("ledger").find(id="ledger-toy-claim")
    assert row.find("a", href="toy.html#claim-toy-claim")
    assert "claim-agrees" in row["class"]


def test_what_touches_a_formula_stays_with_it(pages):
    card = pages("toy").find("details", class_="claim-agrees")
    whole = [each.get_text() for each in card.find_all("span", class_="whole")]
    assert r"\(C/L\)." in whole
    assert not any("norm" in each for each in whole)  # it has room on both sides


def test_a_formula_of_a_docstring_is_one_line_and_a_display_is_not():
    text = '"""The energy $a\n+ b$ for $c$.\n\n$$\na\n+ b\n$$\n\n5 $\n\n- x\n"""'
    assert api.docstring(ast.parse(text)) == (
        "The energy $a + b$ for $c$.\n\n$$\na\n+ b\n$$\n\n5 $\n\n- x"
    )


def test_a_key_of_the_bibliography_is_cited_in_a_docstring():
    text = '"""Sources: `li2018`, {cite:t}`e2019`; `value`, ``li2018``."""'
    assert api.docstring(ast.parse(text)) == (
        "Sources: {cite:t}`li2018`, {cite:t}`e2019`; `value`, ``li2018``."
    )


def test_an_interval_that_is_a_point_is_one_number():
    assert claims._typeset("1 [1, 1], range") == "1, range"
    assert claims._typeset("-1 [-1, -0.5], range") == "−1 [−1, −0.5], range"


def test_the_count_is_a_sentence(pages):
    text = pages("intro").find("article").get_text(" ", strip=True)
    said = "2 claims: 1 ✓ agrees, 0 ≠ differs, 1 ? undecided, 0 ○ not attempted"
    assert f"Today it holds {said} (" in " ".join(text.split())


def test_the_summary_counts_and_the_rows_can_be_chosen(pages):
    summary = pages("ledger").find("table")
    last = [cell.get_text(strip=True) for cell in summary.select("tr")[-1].select("td")]
    assert last == ["all", "1", "–", "1", "–", "2"]
    row = pages("ledger").find(id="ledger-toy-claim")
    assert set(row["class"]) >= {"claim-agrees", "paper-marion2024"}
    assert pages("ledger").select_one(".claims-filter")


def test_the_alternative_text_is_filled_from_the_record(pages):
    image = pages("toy").select_one("article img")
    assert image["alt"] == "A line of slope -1.0 and more"


def test_each_panel_has_a_window_on_the_whole(pages):
    whole, *parts = pages("toy").select("article img")
    assert [part["src"] for part in parts] == 2 * [whole["src"]]
    assert [part["alt"] for part in parts][:1] == [whole["alt"]]
    styles = [span["style"] for span in pages("toy").select("article span.panel")]
    assert styles == ["--panels: 2; --panel: 0", "--panels: 2; --panel: 1"]


def test_a_page_knows_where_its_old_sections_are(pages):
    moved = json.loads(pages("toy").find("script", id="moved").get_text())
    assert moved == {
        "old-section": "ledger.html#old-section",
        "older": "ledger.html#ledger-toy-claim",
    }
    assert pages("ledger").find("script", id="moved") is None


def test_the_page_is_the_record_and_ends_in_its_provenance(pages):
    text = pages("toy").find("article").get_text(" ", strip=True)
    assert "Slope \N{MINUS SIGN}1.00 ," in text
    assert "gap -1.4 × 10 -3 ." in text.translate({0x2212: "-", 0xA0: " "})
    assert "which is not a page" not in text
    assert "at commit abcdef0123+: profile book, seed 1, cpu, float64; 12 s" in text


def test_the_theme_keeps_the_launch_buttons(pages):
    """Theme options would replace them all, were they not merged."""
    links = [a["href"] for a in pages("toy").select(".article-header-buttons a[href]")]
    assert [u for u in links if "mybinder" in u and u.endswith("book/toy.ipynb")]
    assert [u for u in links if "colab" in u and u.endswith("book/toy.ipynb")]


def test_the_status_page_has_a_row_for_the_record(pages):
    text = pages("status").find("article").get_text(" ", strip=True)
    assert "All pages: version 0.1.0, profile book, seed 1, device cpu." in text
    assert "Toy abcdef0123+ float64 12 340" in text


def test_one_registry_makes_the_table_and_the_macros(pages):
    registry = yaml.safe_load((ROOT / "book" / "notation.yml").read_text("utf-8"))
    rows = pages("intro").select("article tbody tr")
    assert len(rows) == len(registry["symbols"])
    scripts = " ".join(script.get_text() for script in pages("toy").select("script"))
    assert all(f'"{macro}"' in scripts for macro in registry["macros"])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"measured": False}, "toy-claim: 0 measurements"),
        ({"claims": []}, "claims.yml has no such claim"),
        ({"claims": [CLAIM | {"verdict": "differs"}]}, "is agrees"),
        ({"card": CARD.replace("toy-claim", "other")}, "no claim 'other'"),
        (
            {"card": "# Toy"},
            "without a card on any page: ['toy-claim', 'toy-wide']",
        ),
        ({"moved": {"toy": {"old": "nowhere"}}}, "not there: ['nowhere']"),
        ({"alt": "Slope {slpoe:.2f}"}, "the alt text quotes 'slpoe'"),
    ],
)
def test_what_does_not_hold_stops_the_build(tmp_path, options, message):
    status, said = build(tmp_path, **options)
    assert status != 0
    assert message in said
