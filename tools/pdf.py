"""The whole book as one PDF: `python tools/pdf.py` writes build/deep-limits.pdf.

Sphinx makes one page of the book (`singlehtml`), and Chromium prints it: mathematics
is set as on the site, figures and theorems keep their numbers, links stay inside, and
the headings are the outline. What is printed and what is not stands in the style sheet
under `@media print`.
"""

import argparse
import functools
import http.server
import subprocess
import sys
import threading
from pathlib import Path

import yaml
from browser import launch

ROOT = Path(__file__).resolve().parents[1]
FOOT = """<div style="font-size: 8px; width: 100%; text-align: center">
<span class="pageNumber"></span></div>"""
SHEET = {
    **{"format": "A4", "outline": True, "tagged": True, "display_header_footer": True},
    **{"header_template": "<span></span>", "footer_template": FOOT, "scale": 0.8},
    "margin": {"top": "18mm", "bottom": "18mm", "left": "18mm", "right": "18mm"},
}


class Quiet(http.server.SimpleHTTPRequestHandler):
    """A server that says nothing."""

    def log_message(self, format: str, *args: object) -> None:
        pass


def one_page(root: Path, folder: Path) -> Path:
    """Build the book as one page, `index.html` at the top of the folder returned."""
    start = "from jupyter_book.cli.main import main; main()"
    tool = [sys.executable, "-c", start, "build", str(root)]
    kind = ["--builder", "custom", "--custom-builder", "singlehtml", "--all"]
    subprocess.run([*tool, *kind, "--path-output", str(folder)], check=True)
    site = folder / "_build" / "singlehtml"
    first = yaml.safe_load((root / "_toc.yml").read_text("utf-8"))["root"]
    # It loads as a page at the top does; some of its links name the page itself.
    text = (site / f"{first}.html").read_text("utf-8")
    text = text.replace(f'href="{first}.html#', 'href="#')
    (site / "index.html").write_text(text, "utf-8")
    return site


def print_page(site: Path, target: Path) -> None:
    """Print `index.html` of a folder, its formulas set and all its pictures loaded."""
    handler = functools.partial(Quiet, directory=str(site))
    with (
        http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server,
        launch() as browser,
    ):
        threading.Thread(target=server.serve_forever, daemon=True).start()
        page = browser.new_page(color_scheme="light")
        page.set_default_timeout(600_000)
        page.goto(f"http://127.0.0.1:{server.server_port}/index.html")
        page.evaluate("for (const i of document.images) i.loading = 'eager'")
        page.wait_for_function("[...document.images].every((i) => i.complete)")
        page.wait_for_function("window.MathJax?.startup?.promise")
        page.evaluate("MathJax.startup.promise.then(() => null)")
        target.parent.mkdir(parents=True, exist_ok=True)
        page.pdf(path=target, **SHEET)
        server.shutdown()


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--root", type=Path, default=ROOT, help="of the book")
    parser.add_argument("--output", type=Path, default=ROOT / "build/deep-limits.pdf")
    given = parser.parse_args()
    site = one_page(given.root, given.output.parent / "onepage")
    print_page(site, given.output)


if __name__ == "__main__":
    main()
