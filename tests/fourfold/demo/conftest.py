"""One server for all tests of the page, and one browser for each file of them; each test opens the page again."""

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).parents[2] / "support"))
sys.path.insert(0, str(Path(__file__).parent))
import browser
from stand_in import Served
from window import Window


@pytest.fixture(scope="module")  # no longer: see `browser.started`
def chromium() -> Iterator[Any]:
    """A window that the tests of a file open again: a new one would cost each of them a second."""
    with browser.started() as found:
        page = found.new_page()
        page.set_default_timeout(60_000)
        yield page


@pytest.fixture(scope="session")
def served() -> Iterator[Served]:
    found = Served()
    yield found
    found.stop()


@pytest.fixture
def window(chromium: Any, served: Served, request: pytest.FixtureRequest) -> Iterator[Window]:
    """Open the page at the width of a desk, or of the marked one; a message on the console fails the test."""
    chromium.set_viewport_size(getattr(request, "param", browser.DESKTOP))
    served.models.requests.clear()
    found = Window(chromium, served)
    found.open()
    yield found
    found.close()
    assert found.complaints == []
    assert [url for url in found.loaded if not url.startswith((served.url, "data:", "blob:"))] == []
