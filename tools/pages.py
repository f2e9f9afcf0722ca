"""What each page asks of its reader, on the page as it is built.

    python tools/pages.py        a table: words, cards, figures, code, seconds, memory

A page says in its front matter of what `kind` it is, and `KINDS` what a page of that
kind may hold. Words are those that a reader meets without opening anything: not those
of exercises, solutions, proofs and code; a formula is one word.
"""

import copy
import json
import re
import sys
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import yaml
from bs4 import BeautifulSoup, Tag

ROOT = Path(__file__).resolve().parents[1]
SITE = ROOT / "_build" / "html"


@dataclass(frozen=True)
class Limits:
    """The most that a page may hold; of figures also the least."""

    words: float = float("inf")
    cards: float = float("inf")
    figures: tuple[float, float] = (0, float("inf"))
    seconds: float = 60


KINDS = {
    "lecture": Limits(words=1600, cards=4, figures=(4, 6), seconds=40),
    "starred": Limits(words=2000, cards=6),
    "companion": Limits(seconds=30),  # one paper: what was reproduced
    "tool": Limits(),
    "reference": Limits(),
}
UNREAD = (
    "pre, script, style, a.headerlink, .provenance, .exercise, .solution, "
    "details.hide > summary, "
    "details.sd-dropdown:not(.claim), details.claim .sd-summary-content"
)
COLUMNS = ("page", "kind", "words", "cards", "figures", "lines", "hidden", "s", "MiB")


class PageError(ValueError):
    """A page that does not say what it is, or is not built."""


def front_matter(path: Path) -> dict:
    text = path.read_text(encoding="utf-8")
    found = re.match(r"---\n(.*?)\n---\n", text, re.DOTALL)
    return (yaml.safe_load(found[1]) or {}) if found else {}


def contents(root: Path = ROOT) -> list[str]:
    """The names of the pages, in the order of the table of contents."""
    toc = yaml.safe_load((root / "_toc.yml").read_text(encoding="utf-8"))
    chapters = [chapter for part in toc["parts"] for chapter in part["chapters"]]
    files = [part["file"] for c in chapters for part in (c, *c.get("sections", []))]
    return [name.removeprefix("book/") for name in (toc["root"], *files)]


@dataclass(frozen=True)
class Page:
    """A page, by its name."""

    name: str
    root: Path = ROOT

    @cached_property
    def kind(self) -> str:
        """What its front matter says."""
        kind = front_matter(self.root / "book" / f"{self.name}.md").get("kind")
        if kind not in KINDS:
            raise PageError(f"{self.name}: kind is {kind!r}, not of {list(KINDS)}.")
        return kind

    @cached_property
    def article(self) -> Tag:
        path = self.root / "_build" / "html" / "book" / f"{self.name}.html"
        if not path.is_file():
            raise PageError(f"{self.name} is not built: run `make book`.")
        soup = BeautifulSoup(path.read_text(encoding="utf-8"), "html.parser")
        return soup.select_one("article") or soup

    @cached_property
    def text(self) -> str:
        """What is read without opening anything."""
        seen = copy.copy(self.article)
        for node in seen.select(UNREAD):
            node.decompose()
        for formula in seen.select(".math"):
            formula.replace_with(" formula ")
        return seen.get_text(" ")

    @property
    def words(self) -> int:
        return len(re.findall(r"\w[\w'’.,:–-]*", self.text))

    @property
    def cards(self) -> int:
        return len(self.article.select("details.claim"))

    @cached_property
    def figures(self) -> list[str]:
        """The names of the numbered figures."""
        return [str(node["id"]) for node in self.article.select("figure[id]")]

    def referred(self, figure: str) -> bool:
        """Whether a sentence of the page refers to a figure by its number."""
        links = self.article.select(f'a.internal[href="#{figure}"]')
        return any("headerlink" not in (link.get("class") or []) for link in links)

    @cached_property
    def lines(self) -> tuple[int, int]:
        """Of code: those that are seen, and those that are not."""
        seen = sum(
            sum(bool(line.strip()) for line in block.get_text().splitlines())
            for block in self.article.select("div.cell_input pre")
            if block.find_parent("details") is None
        )
        return seen, self._code() - seen

    def _code(self) -> int:
        cells = self._record().get("cells", [])
        code = ["".join(c["source"]) for c in cells if c["cell_type"] == "code"]
        return sum(bool(line.strip()) for text in code for line in text.splitlines())

    def _record(self) -> dict:
        path = self.root / "book" / f"{self.name}.ipynb"
        return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}

    @cached_property
    def provenance(self) -> dict:
        """Of the record; empty where nothing is computed."""
        meta = self._record().get("metadata", {})
        return meta.get("deeplimits", {}).get("provenance", {})

    @property
    def seconds(self) -> float:
        return self.provenance.get("wall_seconds", 0)

    def row(self) -> tuple:
        numbers = (self.words, self.cards, len(self.figures), *self.lines)
        memory = self.provenance.get("peak_mib", 0)
        return (self.name, self.kind, *numbers, self.seconds, memory)

    def problems(self) -> list[str]:
        """Where it is more than its kind allows."""
        limits, found = KINDS[self.kind], []
        for what in ("words", "cards", "seconds"):
            if (number := getattr(self, what)) > (most := getattr(limits, what)):
                found.append(f"{number} {what}, at most {most}")
        least, most = limits.figures
        if not least <= len(self.figures) <= most:
            found.append(f"{len(self.figures)} figures, {least} to {most}")
        if KINDS[self.kind].figures != Limits.figures:
            figures = [name for name in self.figures if not self.referred(name)]
            found += [f"{name} is not referred to" for name in figures]
        return [f"{self.name} ({self.kind}): {problem}" for problem in found]


def table(pages: list[Page]) -> str:
    rows = [COLUMNS, *(page.row() for page in pages)]
    widths = [max(len(str(row[i])) for row in rows) for i in range(len(COLUMNS))]
    return "\n".join(
        "  ".join(
            str(cell).ljust(width) if i < 2 else str(cell).rjust(width)
            for i, (cell, width) in enumerate(zip(row, widths, strict=True))
        )
        for row in rows
    )


def main() -> int:
    try:
        pages = [Page(name) for name in contents()]
        print(table(pages))
        problems = [problem for page in pages for problem in page.problems()]
    except PageError as error:
        problems = [str(error)]
    print("\n".join(problems))
    return bool(problems)


if __name__ == "__main__":
    sys.exit(main())
