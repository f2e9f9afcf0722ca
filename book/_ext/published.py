"""What a published site needs beside its pages.

Each page gets its canonical address, a description in words and a social card; the site
gets a map of itself (`sitemap.xml`), a page for addresses that lead nowhere
(`404.html`), and the ledger as JSON (`ledger.json`, described by `ledger.schema.json`).
The address of the site follows from that of the repository.
"""

import json
import re
from html import escape
from pathlib import Path
from urllib.parse import urlsplit

import ledger_data
from docutils import nodes
from sphinx.application import Sphinx

CARD = "_static/card.png"
LONGEST = 160  # what a search engine shows of a description
# TeX, as words: what is left out, and what becomes of the rest.
STYLES = re.compile(
    r"\\(?:mathcal|mathbb|mathrm|mathbf|operatorname|text|left|right)\b"
)
SIGNS = {r"\to": "→", r"\le": "≤", r"\ge": "≥", r"\infty": "∞", r"\times": "×"}

NOWHERE = """<!DOCTYPE html>
<html lang="en-GB">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="robots" content="noindex">
<meta name="color-scheme" content="light dark">
<title>No such page · {title}</title>
<style>
body {{ font: 1.1rem/1.6 sans-serif; margin: 15vh auto; max-width: 34rem; }}
body {{ padding: 0 1rem; }}
</style>
</head>
<body>
<main><article role="main">
<h1>No such page</h1>
<p>At this address there is nothing, or nothing any more. What a page had that has since
moved is found from its first page.</p>
<p><a href="{home}">The book from its beginning</a> ·
<a href="{home}search.html">Search</a></p>
</article></main>
</body>
</html>
"""


def site_address(repository: str) -> str:
    """Where the site of a repository is published."""
    owner, name = urlsplit(repository).path.strip("/").split("/")
    return f"https://{owner}.github.io/{name}/"


def set_address(app: Sphinx, config) -> None:
    repository = config.html_theme_options.get("repository_url", "")
    if repository and not config.html_baseurl:
        config.html_baseurl = site_address(repository)


def words(tex: str) -> str:
    """A formula as it may stand in a line of plain text."""
    tex = STYLES.sub("", tex)
    for sign, shown in SIGNS.items():
        tex = re.sub(re.escape(sign) + r"\b", shown, tex)
    return re.sub(r"\s+", " ", re.sub(r"[\\{}$]", "", tex)).strip()


def _plain(node: nodes.Node) -> str:
    if isinstance(node, nodes.math):
        return words(node.astext())
    if isinstance(node, nodes.Text):
        return node.astext()
    return "".join(map(_plain, node.children))


def description(doctree: nodes.document) -> str:
    """The beginning of a page's first paragraph, in words."""
    paragraphs = (_plain(p) for p in doctree.findall(nodes.paragraph))
    text = next((t for t in map(str.split, paragraphs) if len(t) > 8), [])
    line = " ".join(text)
    if len(line) <= LONGEST:
        return line
    return line[: LONGEST - 1].rsplit(" ", 1)[0].rstrip(",;:") + "…"


def add_metadata(app: Sphinx, page, template, context, doctree) -> None:
    base = app.config.html_baseurl
    if not base or app.builder.name != "html":
        return
    title = words(re.sub(r"<[^>]*>", "", context.get("title", "")))
    about = description(doctree) if doctree is not None else ""
    named = {"description": about} if about else {}
    shared = {
        "og:title": title,
        "og:description": about,
        "og:type": "article",
        "og:url": context.get("pageurl") or "",
        "og:site_name": app.config.html_title or app.config.project,
        "og:image": base + CARD,
        "og:image:alt": "A square grid carried by networks of depth 2 and 8 and by "
        "their limit.",
    }
    tags = [f'<meta name="{k}" content="{escape(v)}">' for k, v in named.items()]
    tags += [f'<meta property="{k}" content="{escape(v)}">' for k, v in shared.items()]
    tags.append('<meta name="twitter:card" content="summary_large_image">')
    context["metatags"] = context.get("metatags", "") + "\n".join(tags)


def write_files(app: Sphinx, error: Exception | None) -> None:
    if error is not None or app.builder.name != "html":
        return
    out, base = Path(app.outdir), app.config.html_baseurl
    pages = sorted(app.env.found_docs)
    listed = "".join(
        f"<url><loc>{escape(base + app.builder.get_target_uri(page))}</loc></url>\n"
        for page in pages
    )
    frame = '<?xml version="1.0" encoding="utf-8"?>\n<urlset xmlns="{}">\n{}</urlset>\n'
    namespace = "http://www.sitemaps.org/schemas/sitemap/0.9"
    (out / "sitemap.xml").write_text(frame.format(namespace, listed), "utf-8")
    title = escape(app.config.html_title or "")
    (out / "404.html").write_text(NOWHERE.format(home=base, title=title), "utf-8")
    text = json.dumps(ledger_data.document(Path(app.srcdir)), ensure_ascii=False)
    (out / "ledger.json").write_text(text + "\n", "utf-8")
    schema = ledger_data.SCHEMA.read_text("utf-8")
    (out / ledger_data.SCHEMA.name).write_text(schema, "utf-8")


def setup(app: Sphinx) -> dict:
    app.connect("config-inited", set_address)
    app.connect("html-page-context", add_metadata, priority=900)
    app.connect("build-finished", write_files)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
