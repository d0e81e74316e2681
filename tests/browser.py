"""Chromium of this machine, without a window."""

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager

from playwright.sync_api import Browser, Page, sync_playwright

FLAGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-background-networking",
    "--autoplay-policy=user-gesture-required",  # as browsers are set by default
]
SYSTEM = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")


@contextmanager
def running_browser() -> Iterator[Browser]:
    path = next((found for name in SYSTEM if (found := shutil.which(name))), None)
    # Its loop runs in this thread for as long as it is open, and Django would refuse to be asked.
    os.environ["DJANGO_ALLOW_ASYNC_UNSAFE"] = "1"
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=FLAGS)
        yield browser
        browser.close()
    del os.environ["DJANGO_ALLOW_ASYNC_UNSAFE"]


def fits(page: Page) -> bool:
    """Whether nothing of it lies beyond the window's right edge."""
    return page.evaluate("document.documentElement.scrollWidth <= window.innerWidth")
