"""What an HTML page would load from elsewhere when it is opened. Links that people follow do not count."""

import re
from html.parser import HTMLParser

LOADING = {  # attributes that load, by tag; "" is any tag
    "": ("src", "srcset", "poster", "data", "background", "xlink:href"),
    "link": ("href",),
    "base": ("href",),
    "use": ("href",),
    "image": ("href",),
}
INLINE = ("data:", "#")
IN_STYLE = re.compile(r"url\(\s*['\"]?([^'\")]+)|@import\s+['\"]?([^'\";]+)")


class _Loads(HTMLParser):
    def __init__(self, html: str) -> None:
        super().__init__()
        self.found: list[str] = []
        self._in_style = False
        self.feed(html)

    def handle_starttag(self, tag, attributes):
        self._in_style = tag == "style"
        for name, value in attributes:
            value = (value or "").strip()
            if name in (*LOADING[""], *LOADING.get(tag, ())) and not value.startswith(INLINE):
                self.found.append(f"<{tag} {name}={value}>")
            if name.startswith("on") or (tag == "meta" and name == "http-equiv" and value.lower() == "refresh"):
                self.found.append(f"<{tag} {name}={value}>")
            self._style(value if name == "style" else "")
        if tag in ("script", "iframe", "object", "embed"):
            self.found.append(f"<{tag}>")

    def handle_startendtag(self, tag, attributes):
        self.handle_starttag(tag, attributes)

    def handle_data(self, data):
        if self._in_style:
            self._style(data)
            self._in_style = False

    def _style(self, text: str) -> None:
        for match in IN_STYLE.finditer(text):
            if not (match[1] or match[2]).startswith(INLINE):
                self.found.append(match[0])


def loads(html: str) -> list[str]:
    """Return every tag, attribute and style of a page that loads or runs something that is not in the page itself."""
    return _Loads(html).found
