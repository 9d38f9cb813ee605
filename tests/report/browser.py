"""A headless Chromium for the tests of the page; they are skipped without one."""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest

ARGUMENTS = (
    *("--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-sync"),
    *("--disable-background-networking", "--disable-component-update"),
)
CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser"))), None)


class Opened(NamedTuple):
    """A page, the messages of its console, and the URLs that it requested."""

    page: Any
    errors: list[str]
    requests: list[str]


@contextlib.contextmanager
def chromium() -> Iterator[Any]:
    """Start the browser, or skip the test."""
    playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    if CHROMIUM is None:
        pytest.skip("no chromium is installed")
    with playwright.sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=CHROMIUM, args=ARGUMENTS)
        yield browser
        browser.close()


def open_page(context: Any, address: Path | str) -> Opened:
    """Open a file or an address in a context and record its messages and requests."""
    page = context.new_page()
    opened = Opened(page, [], [])
    page.on("pageerror", lambda error: opened.errors.append(str(error)))
    page.on("console", lambda m: opened.errors.append(m.text) if m.type != "log" else None)
    page.on("request", lambda request: opened.requests.append(request.url))
    page.on("dialog", lambda dialog: (opened.errors.append(dialog.message), dialog.dismiss()))
    page.goto(address.as_uri() if isinstance(address, Path) else address)
    return opened
