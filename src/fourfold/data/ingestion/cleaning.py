"""Cleaning of raw samples: one rule per function, and a named reason for every dropped sample."""

# H height, W width

import hashlib
import unicodedata
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from fourfold.data.captions import Captions
from fourfold.data.ingestion.images import CleaningConfig, Unusable, clean_image
from fourfold.data.ingestion.sources import Drop, RawSample

MAX_CONTROL_SHARE = 0.25  # of the characters of a text; UTF-16 and UTF-32 that are read as UTF-8 have more
NO_CONTROLS = frozenset("\t\n\v\f\r")
# Besides controls, formats, separators, private and unassigned characters: fillers, selectors and blanks of other categories
INVISIBLE = frozenset("\u034f\u115f\u1160\u17b4\u17b5\u180b\u180c\u180d\u180f\u2800\u3164\uffa0")
INVISIBLE_CATEGORIES = ("Cc", "Cf", "Cn", "Co", "Zl", "Zp", "Zs")
VARIATION_SELECTORS = (range(0xFE00, 0xFE10), range(0xE0100, 0xE01F0))


@dataclass(frozen=True)
class CleanSample:
    """One image, uint8 (image_size, image_size, 3), with its caption or `Captions`.

    `drops` are captions that are left out, where others are kept. The caption is "" where there is none and captions are
    optional. `metadata` is that of the raw sample.
    """

    key: str
    rgb_HW3: np.ndarray
    caption: str
    drops: tuple[Drop, ...] = ()
    metadata: Mapping[str, Any] = field(default_factory=dict)


def clean(raw: RawSample, config: CleaningConfig, image_size: int) -> CleanSample | Drop:
    """Return the sample with a cleaned image and caption, or a `Drop` with the reason why it cannot be used."""
    try:
        caption, drops = _clean_captions(raw, config)
        rgb_HW3 = clean_image(raw.image, config, image_size)
    except Unusable as reason:
        return Drop(raw.name, str(reason))
    return CleanSample(raw.key, rgb_HW3, caption, drops, raw.metadata)


def _clean_captions(raw: RawSample, config: CleaningConfig) -> tuple[str, tuple[Drop, ...]]:
    """Return the different captions of a sample and those that are left out.

    Where captions are optional and none can be used, the caption is "". Otherwise this raises `Unusable`.
    """
    kept: dict[str, None] = {}
    drops = [Drop(raw.name, raw.no_caption, "caption")] if raw.caption is None else []
    for content in (*([] if raw.caption is None else [raw.caption]), *raw.further):
        try:
            caption = clean_caption(content, config)
        except Unusable as reason:
            drops.append(Drop(raw.name, str(reason), "caption"))
            continue
        if caption not in kept and len(kept) == config.max_captions:
            drops.append(Drop(raw.name, f"image has more than {config.max_captions} captions", "caption"))
        else:
            kept[caption] = None
    if not kept and config.captions == "optional":
        return "", tuple(drops)
    if not kept:
        raise Unusable(drops[0].reason)
    first, *further = kept
    return (Captions(first, further) if further else first), tuple(drops)


def clean_caption(content: bytes, config: CleaningConfig) -> str:
    """Return the caption in Unicode NFC, without control characters and repeated white space; raises `Unusable`."""
    if len(content) > 8 * config.max_caption_length + 1_000:  # bytes; a caption of megabytes is not decoded
        raise Unusable("caption too long")
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError:
        raise Unusable("caption is not UTF-8") from None
    is_plain = text.isascii() and text.isprintable()  # as most captions: no character has to be looked up
    printed = text if is_plain else _printed(text)
    caption = " ".join(printed.split())
    if not caption:
        raise Unusable("caption empty")
    num_invisible = 0 if is_plain else _count_invisible(text, caption)
    if len(caption) - num_invisible < config.min_caption_length:
        raise Unusable("caption too short")
    if len(caption) > config.max_caption_length:
        raise Unusable("caption too long")
    return caption


def _printed(text: str) -> str:
    """Return a text in Unicode NFC with spaces for its control characters and separators of lines."""
    normal = unicodedata.normalize("NFC", text)
    return "".join(" " if unicodedata.category(c) in ("Cc", "Zl", "Zp") else c for c in normal)


def _count_invisible(text: str, caption: str) -> int:
    """Return how many characters of a caption, besides spaces, leave no ink; raises Unusable where all do, or it is no text."""
    controls = sum(c not in NO_CONTROLS and unicodedata.category(c) == "Cc" for c in text)
    if controls > MAX_CONTROL_SHARE * len(text.strip()):
        raise Unusable("caption is not UTF-8 (control characters, as in UTF-16, UTF-32 or data that is no text)")
    if all(map(_is_invisible, caption)):
        raise Unusable("caption of invisible characters")
    return sum(c != " " and _is_invisible(c) for c in caption)


def split_of(key: str, shares: Mapping[str, float]) -> str:
    """Return the split of a key: a split of `shares` with the probability given there, otherwise `train`.

    A hash of the key decides, so a sample stays in its split when other samples are added or the seed changes.
    """
    position = int.from_bytes(hashlib.blake2b(key.encode(), digest_size=8, person=b"split").digest(), "little") / 2**64
    for split, share in shares.items():
        if position < share:
            return split
        position -= share
    return "train"


def _is_invisible(character: str) -> bool:
    """Return whether a character leaves no ink: spaces, formats, fillers, selectors."""
    return (
        unicodedata.category(character) in INVISIBLE_CATEGORIES
        or character in INVISIBLE
        or any(ord(character) in selectors for selectors in VARIATION_SELECTORS)
    )
