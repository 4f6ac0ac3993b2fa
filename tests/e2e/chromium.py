"""The system's Chromium, as all tests of pages run it."""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Iterator

from playwright.sync_api import Browser, sync_playwright

# Each window draws two pages of its own over its address line, which nobody here sees, and keeps a process for what is
# not asked for yet: that is more than half of what a browser costs. (It replaces what Playwright turns off, so that all
# else is as people have it.)
_UNSEEN = "WebUIOmniboxPopup,WebUIOmniboxAimPopup,SpareRendererForSitePerProcess"
ARGUMENTS = ("--no-sandbox", "--disable-gpu", "--disable-quic", "--disable-background-networking",
             "--disable-component-update", "--disable-sync", "--autoplay-policy=no-user-gesture-required",
             f"--disable-features={_UNSEEN}")  # fmt: skip


@contextlib.contextmanager
def chromium(program: str = "", *more: str) -> Iterator[Browser]:
    """A browser, which may not leave this machine. `program`: what starts it, if it is to be elsewhere; `more`:
    flags."""
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=program or shutil.which("chromium"), args=[*ARGUMENTS, *more]
        )
        yield browser
        browser.close()
