"""What the published site has beside its pages, and what stands in for it elsewhere."""

import io
import json
import re
import sys
import urllib.error
import xml.etree.ElementTree as ET
from pathlib import Path
from urllib.parse import urlsplit

import jsonschema
import pytest
import yaml
from bs4 import BeautifulSoup
from conftest import require
from PIL import Image
from sphinx.util.inventory import InventoryFile

import deeplimits
from deeplimits import ledger

ROOT = Path(__file__).resolve().parents[1]
SITE = ROOT / "_build" / "html"
sys.path[:0] = [str(ROOT / "tools"), str(ROOT / "book" / "_ext")]
import ledger_data  # noqa: E402
import links  # noqa: E402
import manifest  # noqa: E402
import published  # noqa: E402
from pages import contents  # noqa: E402

CONFIG = yaml.safe_load((ROOT / "_config.yml").read_text())
HOME = published.site_address(CONFIG["repository"]["url"])
SCHEMA = json.loads(ledger_data.SCHEMA.read_text())


@pytest.fixture(scope="module")
def site():
    require((SITE / "sitemap.xml").is_file(), "no built site: run `make book`")
    return SITE


def soup(path):
    return BeautifulSoup(path.read_text(encoding="utf-8"), "html.parser")


# ----------------------------------------------------------------- each page


@pytest.mark.parametrize("name", contents())
def test_a_page_says_where_it_is_and_what_it_is_about(site, name):
    text = (site / "book" / f"{name}.html").read_text(encoding="utf-8")
    page = BeautifulSoup(text.partition("</head>")[0], "html.parser")
    [canonical] = page.select("link[rel=canonical]")
    assert canonical["href"] == f"{HOME}book/{name}.html"
    [about] = page.select("meta[name=description]")
    assert 40 < len(about["content"]) <= published.LONGEST
    assert not re.search(r"[\\{}$]", about["content"])
    [image] = page.select('meta[property="og:image"]')
    assert (site / image["content"].removeprefix(HOME)).is_file()
    [title] = page.select('meta[property="og:title"]')
    assert title["content"]
    assert not re.search(r"[\\<{]", title["content"])


@pytest.mark.parametrize(
    ("tex", "words"),
    [
        (r"\mathcal{V}", "V"),
        (r"L \to \infty", "L → ∞"),
        (r"\frac{x} \le C/L", "fracx ≤ C/L"),
        (r"\Gamma", "Gamma"),
    ],
)
def test_a_formula_in_words(tex, words):
    assert published.words(tex) == words


def test_the_card_is_small_and_of_the_size_that_is_shown():
    card = ROOT / "book" / "_static" / "card.png"
    with Image.open(card) as image:
        assert image.size == (1200, 630)
    assert card.stat().st_size < 100_000


# ----------------------------------------------------------------- the site


def test_the_map_lists_each_page_once(site):
    spaces = {"s": "http://www.sitemaps.org/schemas/sitemap/0.9"}
    found = [
        u.text for u in ET.parse(site / "sitemap.xml").iterfind(".//s:loc", spaces)
    ]
    assert sorted(found) == sorted(f"{HOME}book/{name}.html" for name in contents())


def test_who_comes_to_no_page_finds_the_way(site):
    page = soup(site / "404.html")
    ways = [a["href"].removeprefix(HOME) for a in page.select("a")]
    assert [w for w in ways if not (site / (w or "index.html")).is_file()] == []
    assert not page.select("script, link, img")  # it is shown at any address


def test_the_inventory_has_the_librarys_names(site):
    with (site / "objects.inv").open("rb") as file:
        inventory = InventoryFile.load(file, HOME, lambda home, at: home + at)
    name, version, at, _ = inventory["py:class"]["deeplimits.residual.ResNet"]
    assert (name, version) == ("Deep Limits", deeplimits.__version__)
    assert at == f"{HOME}book/api-networks.html#deeplimits.residual.ResNet"
    assert "deeplimits.residual" in inventory["py:module"]
    kinds = {"py:class": 70, "py:function": 200, "py:method": 50, "py:property": 20}
    assert [k for k, least in kinds.items() if len(inventory[k]) < least] == []
    for kind in kinds:
        for name, (_, _, where, _) in inventory[kind].items():
            path, _, anchor = where.removeprefix(HOME).partition("#")
            assert anchor == name
            assert (site / path).is_file()


def test_each_entry_of_the_library_links_to_its_lines(site):
    page = soup(site / "book" / "api-networks.html")
    entry = page.find(id="deeplimits.residual.ResNet")
    address = entry.select_one(".api-source a")["href"]
    path, _, lines = address.removeprefix(CONFIG["repository"]["url"]).partition("#L")
    first = int(lines.split("-")[0])
    source = ROOT / path.split("/", 3)[3]
    assert "class ResNet" in source.read_text().splitlines()[first - 1]


# ----------------------------------------------------------------- the ledger


def test_the_ledger_as_data_is_as_its_schema_says(site):
    data = json.loads((site / "ledger.json").read_text())
    jsonschema.Draft202012Validator.check_schema(SCHEMA)
    jsonschema.validate(data, SCHEMA, jsonschema.Draft202012Validator)
    assert json.loads((site / SCHEMA_NAME).read_text()) == SCHEMA
    assert [c["id"] for c in data["claims"]] == [c.id for c in ledger.load(ROOT)]


SCHEMA_NAME = ledger_data.SCHEMA.name


@pytest.mark.parametrize(
    "change",
    [
        {"verdict": "perhaps"},
        {"measured": {"value": 1.0}},
        {"looks": 0},
        {"expected": {"low": "-inf", "high": None, "why": ""}},
        {"extra": 1},
    ],
)
def test_the_schema_refuses_what_is_none(change):
    data = ledger_data.document(ROOT)
    data["claims"] = [data["claims"][0] | change]
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(data, SCHEMA, jsonschema.Draft202012Validator)


def test_what_the_changelog_corrects_is_listed():
    text = """## 0.3.0 (unreleased)
- Corrected: the constant of
  Proposition 2.
- Another thing.
## 0.2.0
- Corrected: a sign.
"""
    found = ledger_data.corrections(text)
    assert found == [
        ("0.3.0", "the constant of Proposition 2."),
        ("0.2.0", "a sign."),
    ]


def test_the_errata_list_the_claims_that_differ(site):
    claims = [c for c in ledger.load(ROOT) if c.verdict == "differs"]
    rows = soup(site / "book" / "errata.html").select(".generated-table tbody tr")
    assert len(rows) >= len([c for c in claims if c.paper != "ours"]) > 0


# ----------------------------------------------------------------- elsewhere


def test_the_manifest_has_not_drifted():
    assert (ROOT / manifest.MANIFEST).read_text() == manifest.manifest(ROOT)


def test_the_manifest_asks_for_the_precision_that_an_archive_was_run_in():
    said = {entry["file"]: entry["comment"] for entry in manifest.archives(ROOT)}
    long = [said[f"results/marion2024/long-time{end}.nc"] for end in ("", "-float32")]
    command = "`deeplimits run marion2024/long-time --profile paper --seed 2024"
    assert [text.startswith(command) for text in long] == [True, True]
    assert ["--double" in text for text in long] == [True, False]
    assert "--double" not in said["results/thorpe2023/rate.nc"]  # by itself in float64


def test_the_manifest_names_files_that_are_there():
    data = yaml.safe_load((ROOT / manifest.MANIFEST).read_text())
    named = {entry["file"] for entry in data["manifest"]}
    assert all((ROOT / name).is_file() for name in named)
    assert len(named) == len(data["manifest"])


def test_citations_agree_with_each_other_and_with_the_bibliography():
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    zenodo = json.loads((ROOT / ".zenodo.json").read_text())
    assert citation["url"] == HOME
    assert zenodo["version"] == citation["version"]
    assert (zenodo["title"], zenodo["keywords"]) == (
        citation["title"],
        citation["keywords"],
    )
    assert re.fullmatch(r"\d{4}-\d\d-\d\d", str(citation["date-released"]))
    bibliography = (ROOT / "book" / "references.bib").read_text()
    related = {r["identifier"] for r in zenodo["related_identifiers"]}
    for reference in citation["references"]:
        number = reference["url"].rpartition("/")[2]
        entry = re.search(rf"@[^@]*eprint = {{{number}}}", bibliography)[0]
        assert str(reference["year"]) in entry
        assert f"{{{reference['doi']}}}" in entry if "doi" in reference else True
        assert f"arXiv:{number}" in related


# ----------------------------------------------------------------- other sites


def refusing(code):
    def opened(request, timeout):
        raise urllib.error.HTTPError(request.full_url, code, "no", {}, io.BytesIO())

    return opened


def test_links_to_other_sites_are_told_apart(monkeypatch):
    monkeypatch.setattr(links, "PAUSE", 0)
    assert links.trouble("https://a.example", opened=refusing(403)) is None
    assert "404" in links.trouble("https://a.example", opened=refusing(404))

    def silent(request, timeout):
        raise TimeoutError("timed out")

    assert links.trouble("https://a.example", opened=silent) == "timed out"
    assert "unknown url type" in links.trouble("nowhere")


def test_links_of_articles_are_gathered_once(tmp_path):
    text = "<article><a href='https://a.example/x#y'>a</a><a href='b.html'>b</a>"
    (tmp_path / "one.html").write_text(text + "</article><a href='https://c.example'>")
    (tmp_path / "two.html").write_text(text)
    assert links.external(tmp_path) == {"https://a.example/x": "one.html"}
    assert urlsplit(HOME).scheme == "https"
