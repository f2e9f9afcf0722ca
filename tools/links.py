"""Try every link of the built site that leads to another host: `python tools/links.py`.

Needs the network and takes minutes; `weekly.yml` runs it. A host that refuses robots
(401, 403, 405, 429) is there; what is not there, or cannot be reached in three tries,
is named, and the exit status is 1.
"""

import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from urllib.parse import urldefrag, urlsplit

from bs4 import BeautifulSoup

ROOT = Path(__file__).resolve().parents[1]
SITE = ROOT / "_build" / "html"
THERE = {401, 403, 405, 429}  # and will not talk to a robot
AGENT = {"User-Agent": "Mozilla/5.0 (a check of links)"}
TRIES, PAUSE, PATIENCE = 3, 5, 30  # seconds
# Buttons whose addresses are made for each page: one test holds them all.
MADE = ("mybinder.org", "colab.research.google.com")


def external(site: Path = SITE) -> dict[str, str]:
    """Address → a page that has it."""
    found: dict[str, str] = {}
    for path in sorted(site.glob("**/*.html")):
        page = BeautifulSoup(path.read_text(encoding="utf-8"), "html.parser")
        for link in (page.select_one("article") or page).select("a[href]"):
            url = urldefrag(str(link["href"])).url
            if urlsplit(url).scheme in ("http", "https"):
                found.setdefault(url, path.relative_to(site).as_posix())
    return {url: at for url, at in found.items() if urlsplit(url).netloc not in MADE}


def trouble(url: str, *, opened: Callable = urllib.request.urlopen) -> str | None:
    """What is wrong with an address; None where it leads somewhere."""
    said = ""
    for attempt in range(TRIES):
        if attempt:
            time.sleep(PAUSE)
        try:
            with opened(urllib.request.Request(url, headers=AGENT), timeout=PATIENCE):
                return None
        except urllib.error.HTTPError as error:
            if error.code in THERE:
                return None
            said = f"{error.code} {error.reason}"
        except (OSError, ValueError) as error:
            said = str(error)
    return said


def main() -> int:
    addresses = external()
    with ThreadPoolExecutor(8) as pool:
        said = list(pool.map(trouble, addresses))
    broken = {u: s for u, s in zip(addresses, said, strict=True) if s is not None}
    for url, reason in broken.items():
        print(f"{addresses[url]}: {url}: {reason}")
    print(f"{len(addresses)} links to other hosts, {len(broken)} broken")
    return int(bool(broken))


if __name__ == "__main__":
    sys.exit(main())
