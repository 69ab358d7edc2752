"""Cleaning of raw samples: one rule per function, and a named reason for every dropped sample."""

# H height, W width

import hashlib
import io
import unicodedata
import warnings
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageOps
from pydantic import Field, model_validator

from fourfold.configuration import Config
from fourfold.data.ingestion.sources import Drop, RawSample

FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF")  # other decoders are disabled: fewer ways for hostile files to do harm
BACKGROUND = (255, 255, 255)  # behind transparent pixels
WIDE_GRAYS = ("I;16", "I;16B", "I;16L", "I;16N", "I")


class CleaningConfig(Config):
    """What a sample must be like to be kept."""

    min_side: int = Field(32, ge=1)  # pixels, of the shorter side before resizing
    max_pixels: int = Field(40_000_000, ge=1, le=80_000_000)  # declared width × height; checked before anything is decoded
    max_aspect_ratio: float = Field(4.0, ge=1)  # longer side / shorter side; the center crop shows little of wider ones
    min_caption_length: int = Field(3, ge=1)  # characters, after white space is normalized
    max_caption_length: int = Field(1_000, ge=1)  # characters

    @model_validator(mode="after")
    def _ordered_lengths(self) -> "CleaningConfig":
        if self.min_caption_length > self.max_caption_length:
            raise ValueError("cleaning.min_caption_length must not be above cleaning.max_caption_length.")
        return self


@dataclass(frozen=True)
class CleanSample:
    """One image, uint8 (image_size, image_size, 3), with its caption; `digest` is a hash of the pixels."""

    key: str
    rgb_HW3: np.ndarray
    caption: str
    digest: str


class Unusable(Exception):  # noqa: N818 - a result about a sample, not an error of the program
    """Raised for a sample that is dropped; the message is the reason under which it is counted."""


def clean(raw: RawSample, config: CleaningConfig, image_size: int) -> CleanSample | Drop:
    """Return the sample with a cleaned image and caption, or a `Drop` with the reason why it cannot be used."""
    try:
        caption = clean_caption(raw.caption, config)
        rgb_HW3 = clean_image(raw.image, config, image_size)
    except Unusable as reason:
        return Drop(raw.name, str(reason))
    digest = hashlib.blake2b(rgb_HW3.tobytes(), digest_size=16).hexdigest()
    return CleanSample(raw.key, rgb_HW3, caption, digest)


def clean_caption(content: bytes, config: CleaningConfig) -> str:
    """Return the caption in Unicode NFC, without control characters and repeated white space; raises `Unusable`."""
    if len(content) > 8 * config.max_caption_length + 1_000:  # bytes; a caption of megabytes is not decoded
        raise Unusable("caption too long")
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError:
        raise Unusable("caption is not UTF-8") from None
    visible = "".join(" " if unicodedata.category(c) in ("Cc", "Zl", "Zp") else c for c in unicodedata.normalize("NFC", text))
    caption = " ".join(visible.split())
    if not caption:
        raise Unusable("caption empty")
    if len(caption) < config.min_caption_length:
        raise Unusable("caption too short")
    if len(caption) > config.max_caption_length:
        raise Unusable("caption too long")
    return caption


def clean_image(content: bytes, config: CleaningConfig, image_size: int) -> np.ndarray:
    """Return the center square of the first frame, upright and resized: uint8 RGB (image_size, image_size, 3).

    Raises:
        Unusable: the image cannot be decoded, or its size or shape is not allowed. The declared size is checked before a pixel
            is decoded, so a decompression bomb costs nothing.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Pillow warns of large and unusual files; both are checked here
            with Image.open(io.BytesIO(content), formats=FORMATS) as image:
                _check_size(*image.size, config)
                image.draft("RGB", (2 * image_size, 2 * image_size))  # JPEG is decoded at 1/2, 1/4 or 1/8 if that is enough
                upright = _upright(image)
                square = ImageOps.fit(to_rgb(upright), (image_size, image_size), Image.Resampling.LANCZOS)
                return np.asarray(square)
    except Unusable:
        raise
    except Image.DecompressionBombError:
        raise Unusable("image has too many pixels") from None
    except MemoryError:  # a fault of the machine, not of the image: dropping it would lose data silently
        raise
    except Exception:  # decoders raise all kinds of errors for hostile bytes
        raise Unusable("image unreadable") from None


def to_rgb(image: Image.Image) -> Image.Image:
    """Return any Pillow image as 8-bit RGB: 16-bit grays are scaled, transparent pixels become white.

    Raises:
        Unusable: the pixels are floating-point numbers, whose range is unknown.
    """
    if image.mode in WIDE_GRAYS:
        values_HW = np.asarray(image).astype(np.int64)
        wide = image.mode != "I" or values_HW.max(initial=0) > 255
        return Image.fromarray(np.clip(values_HW // 257 if wide else values_HW, 0, 255).astype(np.uint8)).convert("RGB")
    if image.mode == "F":
        raise Unusable("image of floating point numbers")
    if image.has_transparency_data:
        layered = image.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", layered.size, (*BACKGROUND, 255)), layered).convert("RGB")
    return image.convert("RGB")


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


def _check_size(width: int, height: int, config: CleaningConfig) -> None:
    shorter, longer = sorted((width, height))
    if width * height > config.max_pixels:
        raise Unusable("image has too many pixels")
    if shorter < config.min_side:
        raise Unusable("image too small")
    if longer > config.max_aspect_ratio * shorter:
        raise Unusable("image too narrow")


def _upright(image: Image.Image) -> Image.Image:
    """Return the image rotated by its EXIF orientation; unreadable EXIF data is ignored."""
    image.load()
    try:
        return ImageOps.exif_transpose(image)
    except Exception:  # the pixels are valid, only their metadata is not
        return image
