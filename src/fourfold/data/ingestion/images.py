"""Cleaning of images: any file becomes one upright sRGB square of 8 bits, or has a named reason why it cannot."""

# H height, W width

import io
import struct
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from typing import Literal

import numpy as np
from PIL import ExifTags, Image, ImageCms, ImageOps
from pydantic import Field, model_validator

from fourfold.configuration import Config

FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF")  # other decoders are disabled: fewer ways for hostile files to do harm
BACKGROUND = (255, 255, 255)  # behind transparent pixels
WIDE_GRAYS = ("I;16", "I;16B", "I;16L", "I;16N", "I")
GRAY_BITS = (8, 10, 12, 16)  # depths in which wide grays are stored; 14 is not told from a dark image of 16
PNG_MAGIC, PNG_TEXTS = b"\x89PNG\r\n\x1a\n", (b"tEXt", b"zTXt", b"iTXt")
MAX_PROFILE_BYTES = 4_000_000  # of a color profile; those of printers have up to 3 MB
PROFILE_SPACES = {"RGB": "RGB", "CMYK": "CMYK", "L": "GRAY"}  # mode of an image → color space of its profile
PROBE_STEP, SAME_COLOR = 32, 2  # levels between the probed colors; largest difference of a profile that is taken for sRGB


class CleaningConfig(Config):
    """What a sample must be like to be kept."""

    min_side: int = Field(32, ge=1)  # pixels, of the shorter side before resizing
    max_pixels: int = Field(64_000_000, ge=1, le=250_000_000)  # declared width × height; checked before anything is decoded
    max_aspect_ratio: float = Field(4.0, ge=1)  # longer side / shorter side; the center crop shows little of wider ones
    min_caption_length: int = Field(3, ge=1)  # characters, after white space is normalized
    max_caption_length: int = Field(1_000, ge=1)  # characters
    max_captions: int = Field(10, ge=1, le=100)  # of one image; more are left out
    # optional: an image without a usable caption is kept; the modality is then missing, and masking leaves it out
    captions: Literal["required", "optional"] = Field("required", exclude_if=lambda value: value == "required")

    @model_validator(mode="after")
    def _ordered_lengths(self) -> "CleaningConfig":
        if self.min_caption_length > self.max_caption_length:
            raise ValueError("cleaning.min_caption_length must not be above cleaning.max_caption_length.")
        return self


class StorageConfig(Config):
    """How cleaned images are stored in the shards."""

    format: Literal["png", "jpeg", "webp"] = "png"  # png loses nothing; the others are for photographs, many times smaller
    quality: int = Field(95, ge=1, le=100)  # of jpeg and webp


class Unusable(Exception):  # noqa: N818 - a result about a sample, not an error of the program
    """Raised for a sample that is dropped; the message is the reason under which it is counted."""


def clean_image(content: bytes, config: CleaningConfig, image_size: int) -> np.ndarray:
    """Return the center square of the first frame, upright and resized: uint8 RGB (image_size, image_size, 3).

    Raises:
        Unusable: the image cannot be decoded, or its size or shape is not allowed. The declared size is checked before a pixel
            is decoded, so a decompression bomb costs nothing.
    """
    return _cleaned(content, config, image_size)


def whole_image(content: bytes, config: CleaningConfig) -> np.ndarray:
    """Return the first frame upright, at its size and in its shape: uint8 RGB (H, W, 3); raises Unusable as `clean_image`."""
    return _cleaned(content, config, None)


def _cleaned(content: bytes, config: CleaningConfig, image_size: int | None) -> np.ndarray:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Pillow warns of large and unusual files; both are checked here
            with _pixel_limit(config.max_pixels), _open(content) as image:
                _check_size(*image.size, config)
                if image_size:
                    image.draft("RGB", (2 * image_size, 2 * image_size))  # JPEG is decoded at 1/2, 1/4 or 1/8 if that is enough
                upright, profile = _upright(image), image.info.get("icc_profile")
                keeps_mode = profile and upright.mode in ("CMYK", "L") and not upright.has_transparency_data
                kept = upright if keeps_mode else to_rgb(upright)
                if image_size:
                    kept = ImageOps.fit(kept, (image_size, image_size), Image.Resampling.LANCZOS)
                return np.asarray(_to_srgb(kept, profile) if profile else kept)
    except Unusable:
        raise
    except Image.DecompressionBombError:
        raise Unusable("image has too many pixels") from None
    except MemoryError:  # a fault of the machine, not of the image: dropping it would lose data silently
        raise
    except Exception:  # decoders raise all kinds of errors for hostile bytes
        raise Unusable("image unreadable") from None


def to_rgb(image: Image.Image) -> Image.Image:
    """Return any Pillow image as 8-bit RGB, itself if it is: wide grays are scaled, transparent pixels become white.

    Raises:
        Unusable: the pixels are floating-point numbers or 32-bit grays, whose range is unknown.
    """
    if image.mode in WIDE_GRAYS:
        return Image.fromarray(_gray8(np.asarray(image).astype(np.int64))).convert("RGB")
    if image.mode == "F":
        raise Unusable("image of floating point numbers")
    if image.has_transparency_data:
        layered = image.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", layered.size, (*BACKGROUND, 255)), layered).convert("RGB")
    return image if image.mode == "RGB" else image.convert("RGB")


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
        # `exif_transpose` copies what needs no rotation
        is_upright = image.getexif().get(ExifTags.Base.Orientation, 1) == 1
        return image if is_upright else ImageOps.exif_transpose(image)
    except Exception:  # the pixels are valid, only their metadata is not
        return image


@contextmanager
def _pixel_limit(max_pixels: int) -> Iterator[None]:
    """Let Pillow refuse only what has more than twice the allowed pixels; its own limit is below the highest allowed one."""
    before, Image.MAX_IMAGE_PIXELS = Image.MAX_IMAGE_PIXELS, max_pixels
    try:
        yield
    finally:
        Image.MAX_IMAGE_PIXELS = before


def _open(content: bytes) -> Image.Image:
    """Open an image; texts of a PNG that Pillow refuses because of their size are left out."""
    try:
        return Image.open(io.BytesIO(content), formats=FORMATS)
    except ValueError:
        if not content.startswith(PNG_MAGIC):
            raise
        return Image.open(io.BytesIO(_without_texts(content)), formats=("PNG",))


def _without_texts(png: bytes) -> bytes:
    """Return a PNG without its text chunks."""
    parts, position = [PNG_MAGIC], len(PNG_MAGIC)
    while position + 12 <= len(png):
        length, kind = struct.unpack_from(">I4s", png, position)
        if kind not in PNG_TEXTS:
            parts.append(png[position : position + 12 + length])
        position += 12 + length
    return b"".join(parts)


def _gray8(values_HW: np.ndarray) -> np.ndarray:
    """Return wide grays, int64 (H, W), as uint8: the smallest usual depth that holds all values is taken for their depth.

    Cameras and scanners store 10 and 12 bits in files of 16. An image of 16 bits that is as dark as that would be black.
    """
    highest = int(values_HW.max(initial=0))
    if values_HW.min(initial=0) < 0 or highest >= 1 << GRAY_BITS[-1]:
        raise Unusable("image of 32-bit grays, whose range is unknown")
    bits = next(bits for bits in GRAY_BITS if highest < 1 << bits)
    return (values_HW * 255 // ((1 << bits) - 1)).astype(np.uint8)


def _to_srgb(square: Image.Image, profile: bytes) -> Image.Image:
    """Return an image in sRGB; a profile that cannot be read or is not of the image's colors is ignored, as viewers do."""
    transform = _transform_to_srgb(profile, square.mode) if len(profile) <= MAX_PROFILE_BYTES else None
    converted = ImageCms.applyTransform(square, transform) if transform else None
    return converted if converted is not None else square.convert("RGB")


@lru_cache(maxsize=16)
def _transform_to_srgb(profile: bytes, mode: str) -> ImageCms.ImageCmsTransform | None:
    """Return the transform of a profile; None if it changes nothing or cannot be used."""
    try:
        source = ImageCms.ImageCmsProfile(io.BytesIO(profile))
        if source.profile.xcolor_space.strip() != PROFILE_SPACES[mode]:
            return None
        transform = ImageCms.buildTransform(source, ImageCms.createProfile("sRGB"), mode, "RGB")
        return None if mode == "RGB" and _changes_nothing(transform) else transform
    except (ImageCms.PyCMSError, OSError, ValueError, TypeError, KeyError, AttributeError):
        return None


def _changes_nothing(transform: ImageCms.ImageCmsTransform) -> bool:
    """Return whether a transform of RGB keeps all colors of a grid, so that images in sRGB stay equal byte for byte."""
    levels = np.minimum(np.arange(0, 257, PROBE_STEP), 255).astype(np.uint8)
    grid_1N3 = np.stack(np.meshgrid(levels, levels, levels), -1).reshape(1, -1, 3)
    converted = ImageCms.applyTransform(Image.fromarray(grid_1N3), transform)
    assert converted is not None, "applied to a copy"
    return int(np.abs(np.asarray(converted).astype(int) - grid_1N3).max()) <= SAME_COLOR
