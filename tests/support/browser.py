"""Chromium for tests of pages, driven by Playwright. `python tests/support/browser.py` installs it (Debian, root)."""

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

PACKAGES = ("chromium", "fonts-liberation")
PROGRAMS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
REQUIRED = "FOURFOLD_TEST_BROWSER"  # set to `required`, as CI does: without a browser the tests fail instead of being skipped
DESKTOP, PHONE = {"width": 1280, "height": 900}, {"width": 390, "height": 844}


def program() -> str | None:
    """Return the browser of this machine."""
    return next(filter(None, map(shutil.which, PROGRAMS)), None)


@contextmanager
def started() -> Iterator[Any]:
    """Start a browser; the test is skipped if there is none, unless it is required.

    Until the end of the block, this thread has a running event loop: tests of other files, which may use asyncio or a browser
    themselves, must not run in it.
    """
    import pytest
    from playwright.sync_api import sync_playwright

    found = program()
    if found is None:
        message = f"There is none of {', '.join(PROGRAMS)} on this machine. Run: make browser-install"
        pytest.fail(message) if os.environ.get(REQUIRED) == "required" else pytest.skip(message)
    with sync_playwright() as playwright:
        # the sandbox needs privileges that a container does not have; the tests open only pages of their own server
        browser = playwright.chromium.launch(executable_path=found, args=["--no-sandbox"])
        yield browser
        browser.close()


def install() -> None:
    """Install Chromium as a Debian package."""
    if program() is not None:
        return
    if shutil.which("apt-get") is None:
        sys.exit(f"There is no apt-get on this system. Install one of {', '.join(PROGRAMS)}.")
    environment = os.environ | {"DEBIAN_FRONTEND": "noninteractive"}
    for command in (["apt-get", "update", "-qq"], ["apt-get", "install", "-y", "-qq", "--no-install-recommends", *PACKAGES]):
        done = subprocess.run(command, env=environment, capture_output=True, text=True)
        if done.returncode:
            sys.exit(f"`{' '.join(command)}` failed: {done.stderr.strip()[-500:]}")


if __name__ == "__main__":
    install()
