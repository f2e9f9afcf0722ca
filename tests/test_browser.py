"""Each page in a headless browser, as on a laptop, on paper and on a phone.

To open a page costs more than to look at it, so one visit makes all the checks, and
says all that it found.
"""

import functools
import http.server
import io
import json
import re
import sys
import threading
from contextlib import contextmanager
from functools import cache
from importlib.util import find_spec
from pathlib import Path

import matplotlib as mpl
import matplotlib.pyplot as plt
import pypdf
import pytest
from conftest import require

from deeplimits import films, plots

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "tools"))
from browser import CHROMIUM, launch  # noqa: E402
from pages import contents, front_matter  # noqa: E402

SITE = ROOT / "_build" / "html"
PAGES = [SITE / "book" / f"{name}.html" for name in contents()]
# Those that Sphinx makes of the others.
MADE = [
    SITE / f"{name}.html" for name in ("genindex", "prf-prf", "py-modindex", "search")
]
# The theme looks for a table of contents on pages that have none.
HARMLESS = ["Cannot read properties of null (reading 'classList')"]

LAPTOP = {"viewport": {"width": 1280, "height": 900}}
PHONE = {"width": 390, "height": 844, "deviceScaleFactor": 3, "mobile": True}
# Wider than any usual font, and what a reader may ask for: text spacing in WCAG 1.4.12.
SPACED = """
:not(mjx-container, mjx-container *) {
  letter-spacing: 0.12em !important;
  word-spacing: 0.16em !important;
}
"""
# What is cut off: wider than its box, which cannot be scrolled. (Formulas have a twin
# for screen readers, which is hidden; MathJax cuts bars to their length; and panels are
# windows on a wider picture. Four pixels are what glyphs of a font that stands in for
# another hang over.)
CLIPPED = """
Array.from(
  document.querySelectorAll("article :not(mjx-assistive-mml, mjx-ext, .panel)")
).filter(
  (node) => 1 < node.clientWidth && node.clientWidth + 4 < node.scrollWidth &&
    ["hidden", "clip"].includes(getComputedStyle(node).overflowX)
).map((node) => `${node.className}: ${node.textContent.trim().slice(0, 80)}`)
"""


# What scrolls sideways and does not show it: no shade, or opaque rows over it.
UNSHADED = """
Array.from(document.querySelectorAll("article *")).filter((node) => {
  const style = getComputedStyle(node);
  const scrolls = ["auto", "scroll"].includes(style.overflowX);
  const rows = Array.from(node.querySelectorAll("thead, tbody, tr, th, td"));
  const opaque = rows.some(
    (row) => getComputedStyle(row).backgroundColor.startsWith("rgb("));
  return scrolls && node.clientWidth + 2 < node.scrollWidth &&
    (opaque || !style.backgroundAttachment.includes("local"));
}).map((node) => node.className || node.tagName)
"""
# Formulas that are cut off at the right; of the boxes in one another one scrolls.
WIDE = """
Array.from(document.querySelectorAll("article .math, article mjx-container")).filter(
  (node) => node.offsetParent && 1 < node.clientWidth &&
    node.clientWidth + 4 < node.scrollWidth
).map((node) => `${node.scrollWidth} px: ${node.textContent.trim().slice(0, 80)}`)
"""
OPEN_ALL = """
document.querySelectorAll("details:not([open])").forEach((node) => {
  node.open = true;
  node.classList.add("was-closed");
});
document.querySelectorAll(".toggle-hidden").forEach(
  (node) => node.classList.replace("toggle-hidden", "was-hidden"));
"""
CLOSE_AGAIN = """
document.querySelectorAll("details.was-closed").forEach(
  (node) => { node.open = false; });
document.querySelectorAll(".was-hidden").forEach(
  (node) => node.classList.replace("was-hidden", "toggle-hidden"));
"""
# A word in each proof and in each solution, to be found in print, or not.
MARK = """
document.querySelectorAll("details.sd-dropdown:not(.claim) .sd-summary-content")
  .forEach((node) => node.prepend("PROOFMARK "));
document.querySelectorAll("div.solution")
  .forEach((node) => node.append("SOLUTIONMARK "));
"""
# Of pictures that a record holds: how many CSS pixels an inch of them takes.
SCALES = """
Array.from(document.querySelectorAll("article .cell_output img, article figure img"))
  .filter((image) => image.offsetParent && /\\.png$|^data:image.png/.test(image.src))
  .map((image) => [image.src, DPI * image.clientWidth / image.naturalWidth])
"""

# What scrolls and cannot be reached by the keyboard.
UNREACHABLE = """
Array.from(document.querySelectorAll("article *")).filter((node) =>
  node.checkVisibility() && node.clientWidth + 2 < node.scrollWidth &&
  ["auto", "scroll"].includes(getComputedStyle(node).overflowX) &&
  node.tabIndex < 0 && !node.querySelector("a[href], button, [tabindex='0']")
).map((node) => `${node.tagName} ${node.className}: ${node.textContent.slice(0, 60)}`)
"""
# Stops of the tabulator that are no link and no button, and do not scroll.
IDLE_STOPS = """
Array.from(document.querySelectorAll("article [tabindex='0']")).filter((node) =>
  !node.matches("a, button, summary") && node.clientWidth + 1 >= node.scrollWidth &&
  node.clientHeight + 1 >= node.scrollHeight && node.checkVisibility()
).map((node) => `${node.tagName} ${node.className}: ${node.textContent.slice(0, 60)}`)
"""
EMULATED = "[screen.width, devicePixelRatio, matchMedia('(pointer: coarse)').matches]"
# After a change of size, with the side bar no longer on its way: it slides.
FRAMES = """
document.getAnimations().filter((a) => a instanceof CSSTransition)
  .forEach((a) => a.finish());
new Promise((f) => requestAnimationFrame(() => requestAnimationFrame(f)))
"""
DARK = """
document.head.append(Object.assign(document.createElement("style"), {
  textContent: "*, ::before, ::after { transition: none !important; }"}));
document.documentElement.dataset.theme = "dark";
"""
# What costs axe-core much and holds nothing new: the inside of formulas, for which one
# word stands; the list of all pages, the same on each; a word of code in a colour that
# stood before.
THIN = """
document.querySelectorAll("mjx-container").forEach(
  (node) => node.replaceChildren("formula"));
if (!FIRST) {
  document.querySelectorAll(".bd-sidebar-primary nav").forEach((n) => n.remove());
}
const colours = new Set();
document.querySelectorAll("pre span[class]").forEach((node) => {
  if (colours.has(node.className)) node.remove();
  colours.add(node.className);
});
"""
# Of all blocks whose text stands in the same elements and classes, and so in the same
# colours, the first keeps its text.
ALIKE = """
const chain = (node, end) => !node || node === end ? "" : chain(node.parentElement, end)
  + ">" + [node.tagName, node.getAttribute("class"), node.getAttribute("style"),
           node.rowIndex % 2];
const BLOCKS = "p, li, td, th, dt, dd, pre, summary, figcaption, div, :is(h1, h2, h3)";
const blocks = new Map(), seen = new Set();
const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
for (let text; (text = walker.nextNode()); ) {
  const block = text.parentElement.closest(BLOCKS) || document.body;
  if (text.data.trim()) blocks.set(block, (blocks.get(block) || []).concat(text));
}
for (const [block, texts] of blocks) {
  const inside = new Set(texts.map((text) => chain(text.parentElement, block)));
  const kind = chain(block) + "|" + Array.from(inside).sort().join("|");
  if (seen.has(kind)) texts.forEach((text) => { text.data = ""; });
  seen.add(kind);
}
"""
COLOURS = ["color-contrast", "link-in-text-block"]  # what depends on light and dark
OTHERS = {rule: {"enabled": False} for rule in COLOURS}
OTHERS |= {"label-content-name-mismatch": {"enabled": True}}
# Rule → who answers for it, and why it may stand. None so far.
EXCEPTIONS: dict[str, tuple[str, str]] = {}

CLOCKS = """
(screen) => screen.getAnimations({subtree: true}).map((a) => a.animationName).sort()
"""


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
    require(CHROMIUM, "no Chromium here, nor Chrome")
    require(find_spec("playwright"), "no playwright here")
    with launch() as browser:
        yield browser


class Visit:
    """One page, opened, with all that it said and asked for on the way."""

    def __init__(self, browser, site, path, **options):
        self.context = browser.new_context(**options)
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

    def width(self):
        """Of the content. A phone's own `innerWidth` grows with it."""
        return self.page.evaluate("document.documentElement.scrollWidth")

    @contextmanager
    def on_paper(self):
        """As a page of A4 shows it, without the margins; then the size remains."""
        self.page.emulate_media(media="print")
        self.page.set_viewport_size({"width": 717, "height": 1000})
        yield
        self.page.emulate_media(media="null")

    @contextmanager
    def on_phone(self):
        """As a phone shows it, which is touched; yields what sets the size anew."""
        wire = self.context.new_cdp_session(self.page)

        def resize(**size):
            wire.send("Emulation.setDeviceMetricsOverride", PHONE | size)
            self.page.evaluate(FRAMES)

        wire.send("Emulation.setTouchEmulationEnabled", {"enabled": True})
        resize()
        assert self.page.evaluate(EMULATED) == [390, 3, True]
        yield resize
        wire.send("Emulation.setTouchEmulationEnabled", {"enabled": False})
        wire.detach()
        self.page.set_viewport_size(LAPTOP["viewport"])
        self.page.evaluate(FRAMES)

    def clipped(self):
        return self.page.evaluate(CLIPPED)

    def small_figures(self):
        """Pictures whose smallest text is under 9 CSS pixels high."""
        self.page.evaluate("for (const i of document.images) i.loading = 'eager'")
        self.page.wait_for_function("[...document.images].every((i) => i.complete)")
        with mpl.rc_context():
            plots.use_style()
            dpi = mpl.rcParams["figure.dpi"]
        scales = self.page.evaluate(SCALES.replace("DPI", str(dpi)))
        return [src for src, inch in scales if plots.SMALLEST / 72 * inch < 9 - 0.05]

    def unfold(self):
        """Open all that opens; `fold` closes what was closed."""
        self.page.evaluate(OPEN_ALL)
        self.page.evaluate(FRAMES)

    def fold(self):
        self.page.evaluate(CLOSE_AGAIN)

    def misprinted(self):
        """What is amiss on paper, where proofs are open and solutions left out."""
        self.page.evaluate(MARK)
        proofs = self.count("details.sd-dropdown:not(.claim)")
        pdf = pypdf.PdfReader(io.BytesIO(self.page.pdf()))
        text = " ".join(sheet.extract_text() for sheet in pdf.pages)
        wrong = re.findall(r"SOLUTIONMARK|(?:Show|Hide) code|Click to \w+", text)
        shown = text.count("PROOFMARK")
        return wrong + [f"{shown} of {proofs} proofs"] * (shown != proofs or not proofs)

    def barriers(self, **options):
        """What axe-core finds, rule by rule, but for what is excepted."""
        if not self.page.evaluate("'axe' in window"):
            self.page.evaluate(axe_script())
        options |= {"resultTypes": ["violations"], "preload": False}
        run = "(options) => axe.run(document, options).then((r) => r.violations)"
        return {
            rule["id"]: [node["html"][:160] for node in rule["nodes"]][:5]
            for rule in self.page.evaluate(run, options)
            if rule["id"] not in EXCEPTIONS
        }

    def is_sent_on(self):
        """Who comes for what has moved from here gets to where it is."""
        if script := self.page.query_selector("#moved"):
            anchor, address = next(iter(json.loads(script.text_content()).items()))
            self.page.goto(f"{self.page.url.partition('#')[0]}#{anchor}")
            self.page.wait_for_url(f"**/{address}", wait_until="commit")


@cache
def axe_script():
    require(find_spec("axe_playwright_python"), "no axe-playwright-python here")
    from axe_playwright_python.base import AXE_SCRIPT

    return AXE_SCRIPT


@pytest.fixture
def visit(browser, site):
    visits = []

    def open_page(path, **options):
        require(path.is_file(), f"{path.name} is not built: run `make book`")
        visits.append(Visit(browser, site, path, **options))
        return visits[-1]

    yield open_page
    for each in visits:
        each.context.close()


def of_kind(*kinds):
    sources = {path: ROOT / "book" / f"{path.stem}.md" for path in PAGES}
    return [p for p, s in sources.items() if front_matter(s).get("kind") in kinds]


LECTURES = of_kind("lecture")
# Pages of reference quote docstrings and the ledger: formulas may scroll there.
READ = of_kind("lecture", "starred", "companion", "tool")


def found(**checks):
    """Of all that was looked for what is there."""
    return {name: what for name, what in checks.items() if what}


@pytest.mark.parametrize("path", PAGES + MADE, ids=lambda path: path.stem)
def test_a_page_on_a_laptop_on_paper_and_on_a_phone(visit, site, path):
    seen = visit(path, **LAPTOP)
    assert seen.count("mjx-container") >= seen.count("span.math, div.math")
    local = (site, "data:", "blob:")
    first = found(
        unset=seen.count("mjx-merror, merror, [data-mjx-error]"),
        said=seen.complaints(),
        asked=[url for url in seen.asked if not url.startswith(local)],
        wider=seen.width() - 1280,
        clipped=seen.clipped(),
        printed=seen.misprinted() if path in LECTURES else [],
    )
    seen.unfold()
    second = found(
        small=seen.small_figures() if path in READ else [],
        idle=seen.page.evaluate(IDLE_STOPS),
        unreachable=seen.page.evaluate(UNREACHABLE),
    )
    with seen.on_paper():
        second |= found(wide_on_paper=seen.page.evaluate(WIDE))
    seen.fold()
    with seen.on_phone() as resize:
        third = small_screen(seen, path, resize)
        seen.unfold()
        seen.page.evaluate(THIN.replace("FIRST", json.dumps(path == PAGES[0])))
    fourth = found(barriers=seen.barriers(rules=OTHERS))
    seen.page.evaluate(ALIKE)
    fourth |= found(light=seen.barriers(runOnly=COLOURS))
    seen.page.evaluate(DARK)
    fourth |= found(dark=seen.barriers(runOnly=COLOURS))
    assert first | second | third | fourth == {}
    seen.is_sent_on()


def small_screen(seen, path, resize):
    """What is amiss on a phone."""
    first = found(
        wider_on_phone=seen.width() - 390,
        unshaded=seen.page.evaluate(UNSHADED),
        clipped_on_phone=seen.clipped(),
    )
    resize(width=320, height=640)  # WCAG 1.4.10
    first |= found(wider_at_320=seen.width() - 320)
    resize()
    seen.unfold()
    second = found(
        wide_formulas=seen.page.evaluate(WIDE) if path in READ else [],
        small_on_phone=seen.small_figures() if path in READ else [],
        unreachable_on_phone=seen.page.evaluate(UNREACHABLE),
    )
    seen.fold()
    spaced = seen.page.add_style_tag(content=SPACED)
    third = found(wider_spaced=seen.width() - 390, clipped_spaced=seen.clipped())
    spaced.evaluate("(style) => style.remove()")
    return first | second | third


@pytest.mark.parametrize("motion", ["no-preference", "reduce"])
def test_a_film_is_still_until_its_box_is_ticked(browser, motion):
    with mpl.rc_context():
        mpl.use("agg")
        figure, ax = plt.subplots(figsize=(2, 1))
        (line,) = ax.plot([0, 1], [0, 1])
        ax.set_ylim(0, 1)
        film = films.film(
            figure,
            lambda k: line.set_ydata([k / 7, 1 - k / 7]),
            8,
            alt="A line that turns, step by step",
            seconds=0.8,
        )
    page = browser.new_page(reduced_motion=motion)
    page.set_content(film._repr_html_())
    screen, box = page.locator(".dl-screen"), page.get_by_label("Play the film")
    still = screen.screenshot()
    assert page.get_by_role("img", name=film.alt).is_visible()
    page.wait_for_timeout(300)
    assert screen.screenshot() == still
    page.keyboard.press("Tab")
    page.keyboard.press("Space")
    assert box.is_checked()
    seen = set()
    for _ in range(5):  # shots take their time, too
        page.wait_for_timeout(130)
        seen.add(screen.screenshot())
    clocks = screen.evaluate(CLOCKS)
    assert clocks == (["dl-across", "dl-down"] if motion != "reduce" else ["dl-down"])
    assert len(seen) > 2 or motion == "reduce"
    page.keyboard.press("Space")
    assert screen.screenshot() == still
    screen.click()
    assert box.is_checked()
    page.emulate_media(media="print")
    assert screen.screenshot() == still
    assert not box.is_visible()
    page.close()


def test_the_ledger_can_be_filtered(visit):
    seen = visit(SITE / "book" / "ledger.html", **LAPTOP)
    rows = "tr[class*=paper-]:not([hidden])"
    everything = seen.count(rows)
    verdict = seen.page.get_by_label("verdict")
    verdict.select_option("differs")
    assert seen.count(rows) == seen.count("tr.claim-differs[class*=paper-]") > 0
    verdict.select_option("")
    assert seen.count(rows) == everything
    seen.page.goto(f"{seen.page.url}?verdict=not-attempted")
    assert seen.count(rows) == seen.count("tr.claim-not-attempted[class*=paper-]") > 0


def test_results_of_a_search_show_words(visit):
    seen = visit(SITE / "search.html", **LAPTOP)
    formula = r"<span class='math'>\(\norm{x} \le \mathcal{V}_L\)</span>"
    page = f"<div role='main'><p>Then {formula}.</p></div>"
    assert seen.page.evaluate("(page) => Search.htmlToText(page)", page).split() == (
        "Then norm x ≤ V_L .".split()
    )
