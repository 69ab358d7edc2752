"""Captions of an image: one text, or several of which the first one counts wherever a single one is read.

Several are stored as a JSON list of texts, `<key>.json`, as the data loader of 4M reads them; one is plain text, `<key>.txt`.
"""

import json
from collections.abc import Sequence


class Captions(str):
    """The first caption of an image, with the others.

    It is a text like any other: what reads one caption of an image reads the first.
    """

    further: tuple[str, ...]

    def __new__(cls, first: str, further: Sequence[str] = ()) -> "Captions":
        """Create the text of the first caption with the others."""
        one = super().__new__(cls, first)
        one.further = tuple(further)
        return one

    def __getnewargs__(self) -> tuple[str, tuple[str, ...]]:  # type: ignore[override]
        return str(self), self.further


def captions_of(value: str) -> tuple[str, ...]:
    """Return all captions of a value, the first one first."""
    return (str(value), *value.further) if isinstance(value, Captions) else (value,)


def encode_captions(value: str) -> bytes:
    """Return the stored bytes: the text itself, or a JSON list of several. A text that reads as such a list is in one."""
    texts = captions_of(value)
    if len(texts) == 1 and _listed(plain := texts[0].encode("utf-8")) is None:
        return plain
    return json.dumps(texts, ensure_ascii=False, separators=(",", ":")).encode("utf-8")


def decode_captions(content: bytes) -> str:
    """Return the value of stored bytes: a text for one caption, `Captions` for several; raises ValueError if not UTF-8."""
    texts = _listed(content)
    if texts is None:
        return content.decode("utf-8")
    return texts[0] if len(texts) == 1 else Captions(texts[0], texts[1:])


def is_list(content: bytes) -> bool:
    """Return whether stored bytes are a JSON list of captions."""
    return _listed(content) is not None


def _listed(content: bytes) -> list[str] | None:
    """Return the texts of a JSON list of at least one text; None for other bytes."""
    if not content.startswith(b'["'):
        return None
    try:
        texts = json.loads(content)
    except (ValueError, RecursionError):
        return None
    is_texts = isinstance(texts, list) and bool(texts) and all(isinstance(text, str) for text in texts)
    return texts if is_texts else None
