"""Pages that can be taught: each holds no more than its kind allows."""

import json
import sys
from functools import cache
from pathlib import Path

import pytest
import yaml
from conftest import require

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "tools"))
import pages  # noqa: E402

BOOK = [pages.Page(name) for name in pages.contents()]
COMPUTED = [page for page in BOOK if page.provenance]
MOST = 30 * 60  # seconds of all records together, twelve chapters included
MOVED = ROOT / "book" / "moved.yml"
# What pages had as anchors once: links from elsewhere may lead there.
ANCHORS = json.loads((ROOT / "tests" / "anchors.json").read_text())

TOY = """
<article>
<p>Three words here, and <span class="math">x^2</span>.</p>
<div class="cell"><div class="cell_input"><pre>a = 1

b = 2</pre></div></div>
<details class="hide"><div class="cell_input"><pre>c = 3</pre></div></details>
<details class="claim sd-dropdown"><summary>agrees</summary>
  <div class="sd-summary-content">not read</div></details>
<details class="sd-dropdown"><summary>Proof</summary>not read</details>
<div class="exercise">not read</div><div class="solution">not read</div>
<figure id="one"><figcaption>A caption.
  <a class="headerlink" href="#one">#</a></figcaption></figure>
<p><a class="reference internal" href="#two">Fig 2</a></p><figure id="two"></figure>
</article>
"""


@pytest.fixture(scope="module", autouse=True)
def built():
    require(list(pages.SITE.glob("book/*.html")), "no built pages: run `make book`")


@pytest.fixture
def toy(tmp_path):
    """A lecture page that has all that is counted, and some that is not."""
    built = tmp_path / "_build" / "html" / "book"
    for folder in (built, tmp_path / "book"):
        folder.mkdir(parents=True)
    (built / "toy.html").write_text(TOY)
    (tmp_path / "book" / "toy.md").write_text("---\nkind: lecture\n---\n\n# Toy\n")
    sources = ["a = 1\n\nb = 2", "c = 3", "d = 4"]
    cells = [{"cell_type": "code", "source": [text]} for text in sources]
    about = {"provenance": {"wall_seconds": 41, "peak_mib": 500}}
    record = {"cells": cells, "metadata": {"deeplimits": about}}
    (tmp_path / "book" / "toy.ipynb").write_text(json.dumps(record))
    return pages.Page("toy", tmp_path)


def test_what_is_counted_is_what_a_reader_meets(toy):
    # Three words here and formula / agrees / A caption / Fig 2
    assert toy.row() == ("toy", "lecture", 10, 1, 2, 2, 2, 41, 500)
    assert toy.problems() == [
        "toy (lecture): 41 seconds, at most 40",
        "toy (lecture): 2 figures, 4 to 6",
        "toy (lecture): one is not referred to",
    ]


def test_a_page_without_a_kind_is_named(toy):
    (toy.root / "book" / "toy.md").write_text("# Toy\n")
    with pytest.raises(pages.PageError, match="toy: kind is None, not of"):
        _ = toy.kind


def test_the_table_of_pages(capsys):
    with capsys.disabled():
        print("\n" + pages.table(BOOK))
    assert not [problem for page in BOOK for problem in page.problems()]


def test_all_records_together_take_half_an_hour_at_most():
    assert sum(page.seconds for page in COMPUTED) <= MOST


@pytest.mark.parametrize("page", COMPUTED, ids=lambda page: page.name)
def test_a_sentence_stands_before_the_first_cell(page):
    first = page.article.select_one("p, div.cell, details.hide")
    assert first is not None
    assert first.name == "p"


@pytest.mark.parametrize("name", ANCHORS)
def test_old_addresses_lead_somewhere(name):
    moved = (yaml.safe_load(MOVED.read_text()) or {}).get(name, {})
    for anchor in ANCHORS[name]:
        where, _, other = moved.get(anchor, name).partition("#")
        assert (other or anchor) in places(where), (name, anchor, where)


@cache
def places(name):
    """All that a link to this page may lead to."""
    [page] = [page for page in BOOK if page.name == name]
    return {node["id"] for node in page.article.select("[id]")}
