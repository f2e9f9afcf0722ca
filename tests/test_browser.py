"""Each page in a headless browser: formulas typeset, console silent, offline."""

import functools
import http.server
import os
import shutil
import threading
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
SITE = ROOT / "_build" / "html"
PAGES = sorted((SITE / "book").glob("*.html"))
CHROMIUM = shutil.which("chromium") or os.environ.get("CHROMIUM", "/usr/bin/chromium")
OPTIONS = [
    "--no-sandbox",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-dev-shm-usage",
    "--no-first-run",
]
# The theme looks for a table of contents on pages that have none.
HARMLESS = ["Cannot read properties of null (reading 'classList')"]

pytestmark = [
    pytest.mark.skipif(not PAGES, reason="no built pages: run `make book`"),
    pytest.mark.skipif(not Path(CHROMIUM).exists(), reason="no chromium here"),
]


class Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *args):
        pass


@pytest.fixture(scope="module")
def site():
    """The site on a local port."""
    handler = functools.partial(Quiet, directory=str(SITE))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


@pytest.fixture(scope="module")
def browser():
    sync = pytest.importorskip("playwright.sync_api", reason="no playwright here")
    with sync.sync_playwright() as play:
        browser = play.chromium.launch(executable_path=CHROMIUM, args=OPTIONS)
        yield browser
        browser.close()


class Visit:
    """One page, opened, with all that it said and asked for on the way."""

    def __init__(self, browser, site, path, width=1280):
        self.context = browser.new_context(viewport={"width": width, "height": 900})
        self.page = self.context.new_page()
        self.said, self.asked = [], []
        self.page.on("console", self._console)
        self.page.on("pageerror", lambda error: self.said.append(str(error)))
        self.page.on("request", lambda request: self.asked.append(request.url))
        self.page.goto(f"{site}/{path.relative_to(SITE).as_posix()}")
        # MathJax replaces its configuration object by itself before it is at work.
        if self.page.query_selector(".math"):
            self.page.wait_for_function("window.MathJax?.startup?.promise")
            self.page.evaluate("MathJax.startup.promise.then(() => null)")

    def _console(self, message):
        if message.type in ("error", "warning"):
            self.said.append(message.text)

    def complaints(self):
        return [s for s in self.said if not any(h in s for h in HARMLESS)]

    def count(self, selector):
        return len(self.page.query_selector_all(selector))


@pytest.fixture
def visit(browser, site):
    visits = []

    def open_page(path, **options):
        visits.append(Visit(browser, site, path, **options))
        return visits[-1]

    yield open_page
    for each in visits:
        each.context.close()


@pytest.mark.parametrize("path", PAGES, ids=lambda path: path.stem)
def test_the_page_is_typeset_silent_and_alone(visit, site, path):
    seen = visit(path)
    formulas = seen.count("span.math, div.math")
    assert seen.count("mjx-container") >= formulas
    assert seen.count("mjx-merror, merror, [data-mjx-error]") == 0
    assert seen.complaints() == []
    local = (site, "data:", "blob:")
    assert [url for url in seen.asked if not url.startswith(local)] == []


@pytest.mark.parametrize("path", PAGES, ids=lambda path: path.stem)
def test_the_page_fits_a_phone(visit, path):
    seen = visit(path, width=390)
    assert seen.page.evaluate("document.documentElement.scrollWidth") <= 391
