"""The page as its users see it."""

from typing import Any

from stand_in import Served


class Window:
    """A window with the page; `complaints` are errors on its console, `loaded` is whatever it requested."""

    def __init__(self, page: Any, served: Served) -> None:
        self.page, self.served = page, served
        self.complaints: list[str] = []
        self.loaded: list[str] = []
        self.listeners = {
            "console": lambda message: self.complaints.append(message.text) if message.type == "error" else None,
            "pageerror": lambda error: self.complaints.append(str(error)),
            "request": lambda request: self.loaded.append(request.url),
        }

    def open(self) -> None:
        for event, listener in self.listeners.items():
            self.page.on(event, listener)
        self.page.goto(self.served.url)
        self.settled()

    def close(self) -> None:
        for event, listener in self.listeners.items():
            self.page.remove_listener(event, listener)

    def settled(self) -> None:
        """Wait until the last request has been answered."""
        self.page.locator("#status.done, #error:not([hidden])").first.wait_for()

    def complained(self, text: str) -> None:
        """Wait for messages on the console (they can come after the page shows an error), all with `text`, and accept them."""
        for _ in range(500):
            if self.complaints:
                break
            self.page.wait_for_timeout(20)
        assert self.complaints and all(text in complaint for complaint in self.complaints), self.complaints
        self.complaints.clear()

    @property
    def asked(self) -> list[tuple[str, dict[str, Any]]]:
        """The requests that the models got: their id and content."""
        return self.served.models.requests

    def last(self) -> dict[str, Any]:
        return self.asked[-1][1]

    def card(self, label: str) -> Any:
        return self.page.locator(f'.card[data-label="{label}"]')

    def status(self) -> str:
        return self.page.inner_text("#status")

    def inputs(self) -> list[str]:
        """The labels whose card is marked as input."""
        return [card.get_attribute("data-label") for card in self.page.locator(".card.given").all()]

    def pixel(self, label: str, x: float, y: float, tile: int = 0) -> list[int]:
        """The color of a drawn image at a place, from 0 to 1."""
        script = "(c, [x, y]) => [...c.getContext('2d').getImageData(x * c.width, y * c.height, 1, 1).data].slice(0, 3)"
        return self.card(label).locator("canvas").nth(tile).evaluate(script, [x, y])

    def press(self, *keys: str) -> None:
        for key in keys:
            self.page.keyboard.press(key)

    def tab_to(self, selector: str, limit: int = 80) -> None:
        """Press Tab until an element has the focus."""
        for _ in range(limit):
            self.press("Tab")
            if self.page.evaluate("(selector) => document.activeElement.matches(selector)", selector):
                return
        raise AssertionError(f"Tab does not reach {selector}")

    def overflow(self) -> int:
        """The pixels by which the page is wider than the window."""
        return self.page.evaluate("document.documentElement.scrollWidth - window.innerWidth")
