"""The PDF, of a book of two pages."""

import base64
import re
import sys
from importlib.util import find_spec
from pathlib import Path

import pypdf
import pytest
from conftest import require
from test_extensions import PIXEL, lay_out

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "tools"))
import pdf  # noqa: E402
from browser import CHROMIUM  # noqa: E402

CHAPTER = """# First chapter

See {numref}`fig-toy` and {prf:ref}`toy-law`, $\\norm{x}$.

```{figure} toy.png
:name: fig-toy
:alt: A dot.

A figure with a caption.
```

```{prf:theorem}
:label: toy-law

A law.
```

:::{dropdown} Proof

PROOFMARK
:::

```{exercise}
:label: toy-ex

Why?
```

```{solution} toy-ex
:class: dropdown

SOLUTIONMARK
```
"""


@pytest.fixture(scope="module")
def printed(tmp_path_factory):
    require(CHROMIUM, "no Chromium here, nor Chrome")
    require(find_spec("playwright"), "no playwright here")
    root = tmp_path_factory.mktemp("book")
    lay_out(root)
    (root / "book" / "intro.md").write_text(CHAPTER)
    (root / "book" / "toy.png").write_bytes(base64.b64decode(PIXEL))
    site = pdf.one_page(root, root / "out")
    pdf.print_page(site, root / "book.pdf")
    return pypdf.PdfReader(root / "book.pdf")


@pytest.fixture(scope="module")
def text(printed):
    return " ".join(" ".join(page.extract_text() for page in printed.pages).split())


def test_the_headings_are_the_outline(printed):
    def titles(items):
        for item in items:
            yield from titles(item) if isinstance(item, list) else [item.title]

    found = [re.sub(r"#$", "", title).strip() for title in titles(printed.outline)]
    assert {"First chapter", "Toy", "Ledger", "Status"} <= set(found)


def test_figures_are_numbered_and_proofs_open(text):
    assert text.count("Fig. 1") >= 2  # the caption, and a reference to it
    assert "PROOFMARK" in text
    assert "SOLUTIONMARK" not in text
    assert not re.search(r"(Show|Hide) code|Click to", text)


def test_links_stay_inside(printed):
    notes = [n.get_object() for p in printed.pages for n in p.get("/Annots", [])]
    addresses = [n["/A"]["/URI"] for n in notes if "/URI" in n.get("/A", {})]
    assert len(notes) > len(addresses)
    assert not [address for address in addresses if "127.0.0.1" in address]
