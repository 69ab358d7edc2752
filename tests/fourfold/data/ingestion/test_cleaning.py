import io
import struct
import unicodedata
import zlib

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageCms, PngImagePlugin

from fourfold.data.ingestion.cleaning import CleanSample, clean, clean_caption, split_of
from fourfold.data.ingestion.images import CleaningConfig
from fourfold.data.ingestion.sources import Drop, RawSample

CONFIG = CleaningConfig(min_side=16)
SIZE = 32


NOT_TEXT = "caption is not UTF-8 (control characters, as in UTF-16, UTF-32 or data that is no text)"
WIDE = "image of 32-bit grays, whose range is unknown"
WITHOUT_MARK = ("utf-16-le", "utf-16-be", "utf-32-le", "utf-32-be")


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


@pytest.mark.parametrize(("bits", "kind"), [(8, "PNG"), (10, "PNG"), (12, "PNG"), (12, "TIFF"), (16, "PNG")])
def test_wide_grays_are_scaled_by_the_bits_in_use(bits, kind):
    steps = np.kron(np.array([[0.1, 0.5], [0.9, 1.0]]), np.ones((32, 32)))
    content = stored(Image.fromarray((steps * ((1 << bits) - 1)).astype(np.uint16)), kind)
    wanted = np.kron(np.array([[0.1, 0.5], [0.9, 1.0]]), np.ones((16, 16))) * 255
    difference = np.abs(cleaned(content).rgb_HW3.mean(-1) - wanted)
    assert np.median(difference) < 2 and difference[3, 3] < 3


def wide_gamut_profile():
    """sRGB with the primaries of Display P3 (D50) in their place."""
    data = bytearray(ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes())
    primaries = {b"rXYZ": (0.5151, 0.2412, -0.0011), b"gXYZ": (0.2919, 0.6922, 0.0419), b"bXYZ": (0.1571, 0.0666, 0.7841)}
    (count,) = struct.unpack_from(">I", data, 128)
    for number in range(count):
        tag, offset, _ = struct.unpack_from(">4sII", data, 132 + 12 * number)
        if tag in primaries:
            data[offset + 8 : offset + 20] = struct.pack(">iii", *(round(value * 65_536) for value in primaries[tag]))
    return bytes(data)


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "TIFF"])
def test_colors_are_converted_to_srgb(kind):
    """Reference: the matrices of Display P3 and sRGB (CSS Color 4, section 10) and the curve that both share."""
    color = np.array([200, 120, 80])
    linear = np.where(color / 255 <= 0.04045, color / 255 / 12.92, ((color / 255 + 0.055) / 1.055) ** 2.4)
    to_srgb = np.array([[1.2249402, -0.2249402, 0.0], [-0.0420570, 1.0420570, 0.0], [-0.0196376, -0.0786360, 1.0982735]])
    wanted = 255 * (1.055 * (to_srgb @ linear) ** (1 / 2.4) - 0.055)
    assert np.abs(wanted - color).max() > 10
    options = {"quality": 100} if kind == "JPEG" else {"lossless": True} if kind == "WEBP" else {}
    content = stored(halves(tuple(color), tuple(color)), kind, icc_profile=wide_gamut_profile(), **options)
    assert is_near(cleaned(content).rgb_HW3.mean(axis=(0, 1)), wanted, 3)


def test_srgb_and_unusable_profiles_change_no_byte():
    pixels = np.random.default_rng(0).integers(0, 256, (SIZE, SIZE, 3), dtype=np.uint8)
    srgb = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    lab = ImageCms.ImageCmsProfile(ImageCms.createProfile("LAB")).tobytes()
    for profile in (srgb, lab, b"no profile", srgb[:200], wide_gamut_profile()[:300]):
        assert np.array_equal(cleaned(stored(Image.fromarray(pixels), icc_profile=profile)).rgb_HW3, pixels)


@settings(max_examples=60, deadline=None)
@given(st.binary(max_size=40), st.integers(0, 600))
def test_no_profile_makes_cleaning_fail(noise, place):
    profile = bytearray(wide_gamut_profile())
    profile[place : place + len(noise)] = noise
    for mode in ("RGB", "L", "CMYK"):
        content = stored(halves(RED, BLUE).convert(mode), "TIFF", icc_profile=bytes(profile))
        assert isinstance(cleaned(content), CleanSample)


def test_png_with_large_compressed_text_is_read():
    info = PngImagePlugin.PngInfo()
    info.add_text("workflow", "x" * 1_500_000, zip=True)
    wanted = cleaned(stored(halves(RED, BLUE))).rgb_HW3
    assert np.array_equal(cleaned(stored(halves(RED, BLUE), pnginfo=info)).rgb_HW3, wanted)


def test_large_images_are_kept_up_to_the_limit():
    content = stored(halves(RED, BLUE, (8_064, 6_048)), "JPEG", quality=30)
    assert is_near(corners(cleaned(content).rgb_HW3)[0], RED)
    limit, larger = Image.MAX_IMAGE_PIXELS, CleaningConfig(min_side=16, max_pixels=200_000_000)
    assert cleaned(png_of(14_000, 14_000, bytes(1000)), config=larger) == Drop("key", "image unreadable")
    assert cleaned(png_of(20_000, 14_000, bytes(1000)), config=larger) == Drop("key", "image has too many pixels")
    assert limit == Image.MAX_IMAGE_PIXELS


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
        (png_of(9_000, 9_000, bytes(1000)), "image has too many pixels"),
        (stored(Image.new("RGB", (15, 40))), "image too small"),
        (stored(Image.new("RGB", (16, 200))), "image too narrow"),
        (stored(halves(RED, BLUE))[:80], "image unreadable"),
        (stored(halves(RED, BLUE), "JPEG")[:-200], "image unreadable"),
        (b"", "image unreadable"),
        (b"<html>not found</html>", "image unreadable"),
        (b"%!PS-Adobe-3.0 EPSF-3.0", "image unreadable"),
        (stored(Image.fromarray(np.ones((64, 64), np.float32)), "TIFF"), "image of floating point numbers"),
        (
            stored(Image.fromarray(np.full((64, 64), 1 << 30, np.int32)), "TIFF"),
            WIDE,
        ),
        (stored(Image.fromarray(np.full((64, 64), -1, np.int32)), "TIFF"), WIDE),
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
        *((text.encode(encoding), NOT_TEXT) for text in ("a red ball", "красный шар") for encoding in WITHOUT_MARK),
        ("\u200b\u200d \u2060\ufe0f\u3164".encode(), "caption of invisible characters"),
        ("\u2800\u2800\u2800 \U000e0101\u202e\ue000".encode(), "caption of invisible characters"),
        ("a\u200b\u200b\u200b".encode(), "caption too short"),
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


def test_split_shares_and_stability():
    keys = [f"photo-{i}" for i in range(4000)]
    shares = {"val": 0.1, "test": 0.2}
    splits = [split_of(key, shares) for key in keys]
    assert splits == [split_of(key, shares) for key in keys]
    assert abs(splits.count("val") / 4000 - 0.1) < 0.02 and abs(splits.count("test") / 4000 - 0.2) < 0.025


def test_contradicting_settings_are_refused():
    with pytest.raises(ValueError, match="min_caption_length must not be above"):
        CleaningConfig(min_caption_length=10, max_caption_length=5)
