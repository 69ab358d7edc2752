import io
import struct
import unicodedata
import zlib

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from fourfold.data.ingestion.cleaning import CleaningConfig, CleanSample, clean, clean_caption, split_of
from fourfold.data.ingestion.sources import Drop, RawSample

CONFIG = CleaningConfig(min_side=16)
SIZE = 32


def stored(image, kind="PNG", **options):
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def cleaned(content, caption=b"a red ball", config=CONFIG):
    return clean(RawSample("key", "key", content, caption), config, SIZE)


def png_of(width, height, rows, depth=8):
    """A PNG of RGB rows (each with its filter byte), written by hand: it may declare what is not there."""

    def chunk(kind, content):
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, depth, 2, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")


def halves(left, right, size=(64, 64)):
    """An image whose left half is one color and whose right half another."""
    pixels = np.zeros((size[1], size[0], 3), np.uint8)
    pixels[:, : size[0] // 2], pixels[:, size[0] // 2 :] = left, right
    return Image.fromarray(pixels)


RED, BLUE = (255, 0, 0), (0, 0, 255)


def corners(rgb):
    return rgb[3, 3].astype(int), rgb[3, -4].astype(int), rgb[-4, 3].astype(int)


def is_near(color, wanted, tolerance=12):
    return np.abs(np.asarray(color, int) - wanted).max() <= tolerance


@pytest.mark.parametrize(
    ("kind", "options"), [("PNG", {}), ("JPEG", {"quality": 95}), ("WEBP", {"lossless": True}), ("BMP", {})]
)
def test_all_formats_give_the_same_image(kind, options):
    sample = cleaned(stored(halves(RED, BLUE), kind, **options))
    assert isinstance(sample, CleanSample) and sample.rgb_HW3.shape == (SIZE, SIZE, 3) and sample.rgb_HW3.dtype == np.uint8
    top_left, top_right, _ = corners(sample.rgb_HW3)
    assert is_near(top_left, RED) and is_near(top_right, BLUE)


def test_image_of_the_right_size_is_unchanged():
    pixels = np.random.default_rng(0).integers(0, 256, (SIZE, SIZE, 3), dtype=np.uint8)
    assert np.array_equal(cleaned(stored(Image.fromarray(pixels))).rgb_HW3, pixels)


def test_center_square_of_a_wide_image_is_kept():
    pixels = np.zeros((64, 192, 3), np.uint8)
    pixels[:, 64:128] = RED
    assert is_near(cleaned(stored(Image.fromarray(pixels))).rgb_HW3.mean(axis=(0, 1)), RED, 8)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation_is_applied(orientation):
    undo = {2: 0, 3: 3, 4: 1, 5: 5, 6: 2, 7: 6, 8: 4}  # Image.Transpose that the camera's turn amounts to
    upright = halves(RED, BLUE)
    upright.paste((0, 255, 0), (0, 48, 16, 64))  # a mark in the lower left corner
    turned = upright.transpose(Image.Transpose(undo[orientation])) if orientation > 1 else upright
    exif = Image.Exif()
    exif[0x0112] = orientation
    top_left, top_right, lower_left = corners(cleaned(stored(turned, exif=exif)).rgb_HW3)
    assert is_near(top_left, RED) and is_near(top_right, BLUE) and is_near(lower_left, (0, 255, 0))


def test_cmyk_becomes_rgb():
    for kind in ("JPEG", "TIFF"):
        top_left, top_right, _ = corners(cleaned(stored(halves(RED, BLUE).convert("CMYK"), kind)).rgb_HW3)
        assert top_left[0] > 200 and top_left[2] < 60 and top_right[2] > 200 and top_right[0] < 60


@pytest.mark.parametrize("kind", ["PNG", "TIFF"])
def test_sixteen_bit_grays_keep_their_brightness(kind):
    wide = Image.fromarray(np.full((64, 64), 0x8080, np.uint16))
    assert is_near(cleaned(stored(wide, kind)).rgb_HW3.mean(axis=(0, 1)), (128, 128, 128), 1)


def test_sixteen_bit_colors_keep_their_brightness():
    row = b"\x00" + bytes([0x80, 0x80, 0x40, 0x40, 0xFF, 0xFF]) * 64
    content = png_of(64, 64, row * 64, depth=16)
    assert is_near(cleaned(content).rgb_HW3.mean(axis=(0, 1)), (128, 64, 255), 1)


def test_decoding_at_reduced_size_is_close_to_full_decoding():
    coarse = np.random.default_rng(0).integers(0, 256, (10, 8, 3), dtype=np.uint8)
    large = Image.fromarray(coarse).resize((800, 1000), Image.Resampling.BICUBIC)
    wanted = large.crop((0, 100, 800, 900)).resize((SIZE, SIZE), Image.Resampling.LANCZOS)
    difference = cleaned(stored(large, "JPEG", quality=95)).rgb_HW3.astype(int) - np.asarray(wanted).astype(int)
    assert np.abs(difference).mean() < 2


def test_first_frame_of_an_animation_is_taken():
    frames = [halves(RED, RED), halves(BLUE, BLUE)]
    for kind in ("GIF", "PNG", "WEBP"):
        content = stored(
            frames[0],
            kind,
            save_all=True,
            append_images=frames[1:],
            duration=50,
            **({"lossless": True} if kind == "WEBP" else {}),
        )
        assert is_near(cleaned(content).rgb_HW3.mean(axis=(0, 1)), RED)


def test_transparent_pixels_become_white():
    layered = np.zeros((64, 64, 4), np.uint8)
    layered[..., 1] = 200
    for image in (Image.fromarray(layered), Image.fromarray(layered).convert("LA")):
        assert is_near(cleaned(stored(image)).rgb_HW3.mean(axis=(0, 1)), (255, 255, 255), 0)
    palette = Image.new("P", (64, 64), 0)
    palette.putpalette([9, 9, 9])
    assert is_near(cleaned(stored(palette, transparency=0)).rgb_HW3.mean(axis=(0, 1)), (255, 255, 255), 0)


def test_one_bit_and_gray_images_become_rgb():
    for mode in ("1", "L", "P"):
        assert is_near(cleaned(stored(halves((255,) * 3, (255,) * 3).convert(mode))).rgb_HW3.mean(axis=(0, 1)), (255, 255, 255))


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (png_of(30_000, 30_000, bytes(1000)), "image has too many pixels"),
        (png_of(7_000, 7_000, bytes(1000)), "image has too many pixels"),
        (stored(Image.new("RGB", (15, 40))), "image too small"),
        (stored(Image.new("RGB", (16, 200))), "image too narrow"),
        (stored(halves(RED, BLUE))[:80], "image unreadable"),
        (stored(halves(RED, BLUE), "JPEG")[:-200], "image unreadable"),
        (b"", "image unreadable"),
        (b"<html>not found</html>", "image unreadable"),
        (b"%!PS-Adobe-3.0 EPSF-3.0", "image unreadable"),
        (stored(Image.fromarray(np.ones((64, 64), np.float32)), "TIFF"), "image of floating point numbers"),
    ],
)
def test_unusable_image_is_dropped_with_its_reason(content, reason):
    assert cleaned(content) == Drop("key", reason)


def test_image_with_broken_exif_is_kept_unrotated():
    assert is_near(
        corners(cleaned(stored(halves(RED, BLUE), "JPEG", exif=b"Exif\x00\x00II*\x00\xff\xff\xff\xff")).rgb_HW3)[0], RED
    )


@settings(max_examples=60, deadline=None)
@given(st.binary(max_size=200), st.sampled_from(["PNG", "JPEG", "GIF", "TIFF", "WEBP", "BMP"]), st.integers(0, 400))
def test_no_bytes_make_cleaning_fail(noise, kind, place):
    content = bytearray(stored(halves(RED, BLUE), kind))
    content[place : place + len(noise)] = noise
    assert isinstance(cleaned(bytes(content)), CleanSample | Drop)


@pytest.mark.parametrize(
    ("caption", "reason"),
    [
        (b"", "caption empty"),
        (b" \n\t\x00 ", "caption empty"),
        (b"ab", "caption too short"),
        (b"x" * 10_000, "caption too long"),
        (b"x" * 1_001, "caption too long"),
        (b"caf\xe9 au lait", "caption is not UTF-8"),
        ("red ball".encode("utf-16"), "caption is not UTF-8"),
        ("\ud800 lone".encode("utf-8", "surrogatepass"), "caption is not UTF-8"),
    ],
)
def test_unusable_caption_is_dropped_with_its_reason(caption, reason):
    assert cleaned(stored(halves(RED, BLUE)), caption) == Drop("key", reason)


def test_caption_is_normalized():
    assert clean_caption("\ufeffa  Cafe\u0301\r\n\x00 \u2028here".encode(), CONFIG) == "a Café here"


@settings(max_examples=100, deadline=None)
@given(st.text(st.characters(codec="utf-8"), max_size=60))
def test_cleaning_a_clean_caption_changes_nothing(text):
    sample = cleaned(stored(halves(RED, BLUE)), text.encode())
    if isinstance(sample, CleanSample):
        assert clean_caption(sample.caption.encode(), CONFIG) == sample.caption
        assert unicodedata.is_normalized("NFC", sample.caption)


def test_equal_pixels_have_equal_digests_in_any_format():
    png, webp = stored(halves(RED, BLUE)), stored(halves(RED, BLUE), "WEBP", lossless=True)
    assert cleaned(png).digest == cleaned(webp).digest != cleaned(stored(halves(BLUE, RED))).digest


def test_split_shares_and_stability():
    keys = [f"photo-{i}" for i in range(4000)]
    shares = {"val": 0.1, "test": 0.2}
    splits = [split_of(key, shares) for key in keys]
    assert splits == [split_of(key, shares) for key in keys]
    assert abs(splits.count("val") / 4000 - 0.1) < 0.02 and abs(splits.count("test") / 4000 - 0.2) < 0.025


def test_contradicting_settings_are_refused():
    with pytest.raises(ValueError, match="min_caption_length must not be above"):
        CleaningConfig(min_caption_length=10, max_caption_length=5)
