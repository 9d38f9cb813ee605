"""Seconds until new images appear on a served page, from the click in a browser to the last image.

    pip install '.[test]' && python benchmarks/serve.py --workdir=RUN [--num=64] [--reps=9]

RUN is a finished run. Its page is served as by --mode=serve on this machine and opened in a
headless Chromium. Timed are one person alone; the later of two who draw at once; and one after a
neighbour closed a tab in the middle of a draw of 4,096.
"""

from __future__ import annotations

import argparse
import shutil
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from playwright.sync_api import sync_playwright

ROOT = Path(__file__).resolve().parents[1]
DONE = "[data-part=done]:not([hidden])"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--workdir", required=True)
    parser.add_argument("--num", type=int, default=64)
    parser.add_argument("--reps", type=int, default=9)
    options = parser.parse_args()
    command = [sys.executable, "-m", "cgjax.main", "--mode=serve", f"--workdir={options.workdir}"]
    start = time.monotonic()
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as server:
        try:
            address = server.stdout.readline().split()[1]
            print(f"ready after {time.monotonic() - start:.1f} s")
            measure(address, options.num, options.reps)
        finally:
            server.terminate()


def measure(address: str, num: int, reps: int) -> None:
    with sync_playwright() as driver:
        browser = driver.chromium.launch(
            executable_path=shutil.which("chromium"), args=["--no-sandbox", "--disable-gpu"]
        )
        start = time.monotonic()
        one = open_page(browser, address, num)
        print(f"page loaded and ready after {time.monotonic() - start:.2f} s")
        show("one person", [seconds_to_draw([one]) for _ in range(reps)], num)
        two = open_page(browser, address, num)
        show("two at once, the later", [seconds_to_draw([one, two]) for _ in range(reps)], num)
        seconds = []
        for _ in range(reps):
            other = open_page(browser, address, 4096)
            other.get_by_role("button", name="Draw", exact=True).click()
            other.locator(".gallery img").first.wait_for()
            other.close()
            seconds.append(seconds_to_draw([one]))
        show("after a closed tab", seconds, num)
        browser.close()


def open_page(browser: Any, address: str, num: int) -> Any:
    page = browser.new_page()
    page.goto(address)
    page.locator("[name=num]").fill(str(num))
    return page


def seconds_to_draw(pages: list[Any]) -> float:
    """Click Draw on every page and return the seconds until all have their images."""
    start = time.monotonic()
    for page in pages:
        page.get_by_role("button", name="Draw", exact=True).click()
    for page in pages:
        page.locator(DONE).wait_for()
    return time.monotonic() - start


def show(what: str, seconds: list[float], num: int) -> None:
    print(
        f"{what}: {num} images in {statistics.median(seconds):.2f} s "
        f"({min(seconds):.2f} to {max(seconds):.2f})"
    )


if __name__ == "__main__":
    main()
