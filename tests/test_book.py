"""The built pages: offline, accessible, and with no loose ends."""

import re
import sys
from functools import cache
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest
import yaml
from bs4 import BeautifulSoup
from conftest import require

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "tools"))
from pages import contents  # noqa: E402

SITE = ROOT / "_build" / "html"
PAGES = sorted(p for p in SITE.glob("**/*.html") if "_static" not in p.parts)
RECORDS = [p for p in PAGES if (ROOT / "book" / f"{p.stem}.ipynb").is_file()]
CONFIG = yaml.safe_load((ROOT / "_config.yml").read_text())
ADDRESS = CONFIG["repository"]["url"]
NUMBERS = CONFIG["sphinx"]["config"]["chapter_numbers"]

LOADS = {  # what a browser fetches by itself
    "script": "src",
    "img": "src",
    "iframe": "src",
    "video": "src",
    "audio": "src",
    "source": "src",
    "embed": "src",
    "object": "data",
}
FETCHED_LINKS = {"stylesheet", "icon", "shortcut", "preload", "modulepreload"}


@pytest.fixture(scope="module", autouse=True)
def built():
    require(PAGES, "no built pages: run `make book`")


def each(paths):
    return pytest.mark.parametrize("path", paths, ids=lambda path: path.stem)


@cache
def soup(path):
    return BeautifulSoup(path.read_text(encoding="utf-8"), "html.parser")


def article(path):
    return soup(path).select_one("article") or soup(path)


def prose(path):
    """The text of a page without its code and outputs of code."""
    copy = BeautifulSoup(str(article(path)), "html.parser")
    for node in copy.select("pre, code, script, style"):
        node.decompose()
    return copy.get_text(" ")


def is_foreign(url):
    return bool(urlsplit(url).netloc)


def loaded(path):
    page = soup(path)
    for tag, attribute in LOADS.items():
        yield from (node[attribute] for node in page.select(f"{tag}[{attribute}]"))
    for link in page.select("link[href]"):
        if FETCHED_LINKS & set(link.get("rel", [])):
            yield link["href"]


def in_toc():
    return [f"book/{name}" for name in contents()]


# ----------------------------------------------------------------- completeness


def test_each_page_of_the_contents_is_built():
    missing = [name for name in in_toc() if not (SITE / f"{name}.html").is_file()]
    assert not missing


def test_each_finished_record_is_in_the_contents():
    records = {f"book/{path.stem}" for path in (ROOT / "book").glob("*.ipynb")}
    assert records <= set(in_toc())


@each(PAGES)
def test_no_page_shows_a_failure(path):
    text = article(path).get_text(" ")
    for trouble in ["Traceback (most recent call last)", "<IPython.core.display"]:
        assert trouble not in text


@each(PAGES)
def test_no_number_is_missing(path):
    """Prose may speak of NaN; what was computed must not be one."""
    computed = ".cell_output, .pasted-text, .claim, .generated-table, figcaption"
    texts = [node.get_text(" ") for node in article(path).select(computed)]
    texts += [image.get("alt", "") for image in article(path).select("img")]
    assert not [text for text in texts if re.search(r"\b(NaN|nan)\b", text)]


@each(PAGES)
def test_no_markup_is_left_raw(path):
    assert not re.findall(r"\{[a-z:]+\}`|:::|\$\$|\]\(", prose(path))


# ----------------------------------------------------------------- offline


@each(PAGES)
def test_nothing_is_loaded_from_another_host(path):
    assert [url for url in loaded(path) if is_foreign(url)] == []


def test_no_stylesheet_loads_from_another_host():
    pattern = re.compile(r"""(?:url\(|@import)\s*["']?(?:https?:)?//""")
    sheets = SITE.glob("_static/**/*.css")
    assert [s.name for s in sheets if pattern.search(s.read_text("utf-8"))] == []


@each(PAGES)
def test_no_inline_script_names_another_host(path):
    scripts = [s.get_text() for s in soup(path).select("script:not([src])")]
    assert not [s for s in scripts if re.search(r"https?://", s)]


def test_mathjax_is_on_board():
    mathjax = SITE / "_static" / "vendor" / "mathjax"
    assert (mathjax / "tex-chtml.js").is_file()
    assert list(mathjax.glob("output/chtml/fonts/woff-v2/*.woff"))


# ----------------------------------------------------------------- accessibility


@each(PAGES)
def test_every_image_has_an_alternative_text(path):
    for image in soup(path).select("img"):
        alt = image.get("alt", "").strip()
        assert alt, image
        assert not re.search(r"\.(png|jpe?g|svg|gif|webp)$", alt), image
        assert "{" not in alt, image


@each(RECORDS)
def test_every_computed_figure_is_described_at_length(path):
    for image in article(path).select(".cell_output img, figure img"):
        assert len(image["alt"].split()) >= 5, image["alt"]


@each(PAGES)
def test_every_video_is_labelled(path):
    assert not soup(path).select("video:not([aria-label])")


# ----------------------------------------------------------------- links


def target(path, href):
    """The file and the anchor that a link of this page leads to."""
    parts = urlsplit(href)
    file = (path.parent / unquote(parts.path)).resolve() if parts.path else path
    return (file / "index.html" if file.is_dir() else file), unquote(parts.fragment)


@each(PAGES)
def test_every_internal_link_leads_somewhere(path):
    for link in soup(path).select("a[href]"):
        href = link["href"]
        if is_foreign(href) or href.startswith(("mailto:", "javascript:")):
            continue
        file, anchor = target(path, href)
        assert file.is_file(), href
        if anchor and file.suffix == ".html":
            assert soup(file).find(id=anchor), href


@each(PAGES)
def test_no_identifier_is_used_twice_in_an_article(path):
    found = [node["id"] for node in article(path).select("[id]")]
    twice = {name for name in found if found.count(name) > 1}
    assert twice <= {"proof-content", "solution-content", "exercise-content"}


@each(RECORDS)
def test_binder_and_colab_open_the_record(path):
    links = [a["href"] for a in soup(path).select(".article-header-buttons a[href]")]
    record = f"book/{path.stem}.ipynb"
    repository = ADDRESS.removeprefix("https://github.com/")
    [binder] = {url for url in links if urlsplit(url).netloc == "mybinder.org"}
    [colab] = {url for url in links if "colab.research.google.com" in url}
    assert binder.endswith(f"{repository}/main?urlpath=lab/tree/{record}")
    assert colab.endswith(f"/github/{repository}/blob/main/{record}")


@each(PAGES)
def test_no_colab_link_opens_a_source(path):
    links = [a["href"] for a in soup(path).select("a[href]")]
    assert not [u for u in links if "colab" in u and not u.endswith(".ipynb")]


@each(PAGES)
def test_buttons_lead_to_one_address(path):
    links = [a["href"] for a in soup(path).select(".article-header-buttons a[href]")]
    links = [url for url in links if urlsplit(url).netloc == "github.com"]
    assert all(url.startswith(ADDRESS) for url in links)


# ----------------------------------------------------------------- the ledger


@each(RECORDS)
def test_every_record_page_ends_in_its_provenance(path):
    [line] = article(path).select(".provenance")
    assert re.search(r"Executed with deeplimits \S+ at commit \S+:", line.get_text())


def test_the_ledger_page_lists_every_claim():
    claims = yaml.safe_load((ROOT / "book" / "claims.yml").read_text())
    page = soup(SITE / "book" / "ledger.html")
    assert not [c["id"] for c in claims if not page.find(id=f"ledger-{c['id']}")]


@pytest.mark.parametrize("page", NUMBERS)
def test_a_chapter_has_the_number_of_the_plan(page):
    path = SITE / f"{page}.html"
    headings = soup(path).select("h1 .section-number, h2 .section-number")
    numbers = [heading.get_text().strip().rstrip(".") for heading in headings]
    assert numbers[:3] == [f"{NUMBERS[page]}{part}" for part in ("", ".1", ".2")]
    figures = soup(path).select(".caption-number")
    assert all(f" {NUMBERS[page]}." in figure.get_text() for figure in figures)
