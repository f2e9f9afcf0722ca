"""Chromium or Chrome without a window, and with a font: `launch`.

A machine may have none; then Chromium ends at the first box to type in. Matplotlib
brings DejaVu, which stands in for what is missing.
"""

import os
import shutil
import tempfile
from contextlib import contextmanager
from pathlib import Path

import matplotlib

NAMES = (os.environ.get("CHROMIUM", ""), "chromium", "google-chrome")
CHROMIUM = next(filter(None, map(shutil.which, NAMES)), None)
OPTIONS = [
    "--no-sandbox",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-dev-shm-usage",
    "--no-first-run",
]
# The machine's own fonts first, as its configuration orders them.
FONTS = """<?xml version="1.0"?>
<fontconfig>
  <include ignore_missing="yes">{ours}</include>
  <dir>{dejavu}</dir>
</fontconfig>
"""


@contextmanager
def launch():
    """The browser, of Playwright; it is closed at the end."""
    from playwright.sync_api import sync_playwright

    ours = os.environ.get("FONTCONFIG_FILE", "/etc/fonts/fonts.conf")
    dejavu = Path(matplotlib.get_data_path()) / "fonts" / "ttf"
    with tempfile.TemporaryDirectory() as folder, sync_playwright() as play:
        fonts = Path(folder) / "fonts.conf"
        fonts.write_text(FONTS.format(ours=ours, dejavu=dejavu), "utf-8")
        browser = play.chromium.launch(
            executable_path=CHROMIUM,
            args=OPTIONS,
            env={**os.environ, "FONTCONFIG_FILE": str(fonts)},
        )
        yield browser
        browser.close()
