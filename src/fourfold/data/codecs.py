"""Encoding of one value of one modality as the bytes of a shard member, and decoding.

Encoding is byte-stable: equal values give equal bytes (fixed PNG settings, canonical JSON, fixed npy header), so a shard's
SHA-256 names its content. Nothing is ever unpickled.

A label and its tokens may share a name (`caption`, `det`). The content distinguishes them: an npy file starts with a byte that
neither UTF-8 text nor JSON can start with.
"""

# H height, W width, K crops, L tokens

import io
import json
import math
import tokenize
from collections.abc import Callable
from functools import lru_cache
from typing import Any

import numpy as np
from PIL import Image

from fourfold.data import missing
from fourfold.data.captions import decode_captions, encode_captions, is_list
from fourfold.modalities import LABELS, TOKEN_MODALITIES, base_name
from fourfold.suggestions import unknown_name

PNG_MAGIC = b"\x89PNG\r\n\x1a\n"
JPEG_MAGIC, WEBP_MAGIC = b"\xff\xd8\xff", (b"RIFF", b"WEBP")  # of WebP at bytes 0 and 8
NPY_MAGIC = b"\x93NUMPY"
FULL_COLOR_QUALITY = 90  # of JPEG; below, colors are stored at half the resolution, as cameras and browsers do
COMPRESS_LEVEL = 3  # level 9 saves less than 2 % on 64 x 64 images and takes four times as long
CROP_SETTINGS = "crop_settings"
# Stored beside labels and tokens; no model reads them
EXTRA_EXTENSIONS = {"attributes": "json", "annotations": "json", "confidence": "json", CROP_SETTINGS: "npy"}
EXTRA_DTYPES = {CROP_SETTINGS: "int32"}
DTYPE_OF_TOKENS = "int16"  # of pre-tokenized samples, as in 4M


def extension(name: str, value: Any = None) -> str:
    """Return the extension of the shard member of a label, token modality or extra; raises ValueError for an unknown name.

    Args:
        name: e.g. "depth", "tok_depth@448" or "crop_settings".
        value: decides for a name that is both a label and a token modality; an array is tokens.
    """
    _check_known(name)
    if isinstance(value, missing.Missing):
        return missing.EXTENSION
    if name in EXTRA_EXTENSIONS:
        return EXTRA_EXTENSIONS[name]
    if name not in LABELS or (isinstance(value, np.ndarray) and LABELS[name].extension in ("txt", "json")):
        return "npy"
    if LABELS[name].extension == "txt" and isinstance(value, str) and is_list(encode_captions(value)):
        return "json"  # several captions
    return LABELS[name].extension


def encode(name: str, value: Any) -> bytes:
    """Return the stored bytes of a value; `decode` is the inverse.

    Args:
        name: a label, token modality or extra.
        value: rgb, normal: uint8 (H, W, 3) · semseg, edges: uint8 (H, W) · depth: float (H, W), stored as float16 · clip and
            other features: float (h, w, C) or (C,), stored as float16 · caption: str, or `Captions` for several · det,
            metadata, attributes, annotations: a JSON object · tokens: integers (K, L), stored as int16 · crop_settings:
            integers (K, 5), stored as int32 · `Missing` for any of them.

    Raises:
        ValueError: the value does not fit its modality.
    """
    if isinstance(value, missing.Missing):
        return value.encode()
    kind = extension(name) if isinstance(value, str) else extension(name, value)
    try:
        return _ENCODERS[kind](name, value)
    except (TypeError, ValueError) as error:
        raise ValueError(f"The value cannot be stored as {name!r} ({kind}): {error}") from error


def decode(name: str, content: bytes) -> Any:
    """Return the value that is stored as `content`; raises ValueError when the bytes are damaged or of another kind."""
    _check_known(name)
    if missing.is_missing(content):
        return missing.decode_missing(content)
    kind = "npy" if content[: len(NPY_MAGIC)] == NPY_MAGIC else extension(name)
    try:
        return _DECODERS[kind](name, content)
    except (OSError, EOFError, TypeError, ValueError, SyntaxError) as error:
        raise ValueError(f"These {len(content)} bytes are not a {name!r} ({kind}): {error}") from error


def _check_known(name: str) -> None:
    if name not in LABELS and base_name(name) not in TOKEN_MODALITIES and name not in EXTRA_EXTENSIONS:
        known = {*LABELS, *TOKEN_MODALITIES, *EXTRA_EXTENSIONS}
        raise ValueError(unknown_name("modality", name, known, "Add it in fourfold/modalities."))


def _encode_png(name: str, value: Any) -> bytes:
    wanted = 3 if LABELS[name].channels == 3 else 2
    if not isinstance(value, np.ndarray) or value.dtype != np.uint8 or value.ndim != wanted:
        raise ValueError(f"expected uint8 with {wanted} axes, got {_describe(value)}.")
    buffer = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(value)).save(buffer, "PNG", compress_level=COMPRESS_LEVEL)
    return buffer.getvalue()


def _decode_png(name: str, content: bytes) -> np.ndarray:
    if name == "rgb" and image_extension(content) != "png":
        return _decode_photograph(content)
    if not content.startswith(PNG_MAGIC):
        raise ValueError("they do not start with the signature of a PNG.")
    with Image.open(io.BytesIO(content), formats=("PNG",)) as image:
        wanted = "RGB" if LABELS[name].channels == 3 else "L"
        if image.mode != wanted:
            raise ValueError(f"the image has mode {image.mode}, expected {wanted}.")
        return np.asarray(image)


def encode_image(rgb_HW3: np.ndarray, image_format: str, quality: int) -> bytes:
    """Return an image uint8 (H, W, 3) as the bytes of a file: `png`, which loses nothing, or `jpeg` or `webp`, which do.

    `decode("rgb", ...)` reads all three. Equal images give equal bytes with one version of Pillow and its libraries.

    Args:
        rgb_HW3: the image.
        image_format: one of these names.
        quality: 1 to 100, of JPEG and WebP; JPEG keeps the resolution of colors from 90 on.
    """
    if image_format == "png":
        return _encode_png("rgb", rgb_HW3)
    buffer = io.BytesIO()
    options = {"subsampling": 0 if quality >= FULL_COLOR_QUALITY else 2} if image_format == "jpeg" else {"method": 4}
    Image.fromarray(np.ascontiguousarray(rgb_HW3)).save(buffer, image_format.upper(), quality=quality, **options)
    return buffer.getvalue()


def image_extension(content: bytes) -> str:
    """Return the extension of the stored bytes of an image."""
    if content.startswith(JPEG_MAGIC):
        return "jpg"
    return "webp" if (content[:4], content[8:12]) == WEBP_MAGIC else "png"


def _decode_photograph(content: bytes) -> np.ndarray:
    with Image.open(io.BytesIO(content), formats=("JPEG", "WEBP")) as image:
        if image.mode != "RGB":
            raise ValueError(f"the image has mode {image.mode}, expected RGB.")
        return np.asarray(image)


def _encode_npy(name: str, value: Any) -> bytes:
    array = _cast(np.asarray(value), _stored_dtype(name))
    if base_name(name) in TOKEN_MODALITIES and array.dtype == DTYPE_OF_TOKENS and array.ndim != 2:
        raise ValueError(f"tokens must have shape (crops, tokens), got {array.shape}.")
    buffer = io.BytesIO()
    np.lib.format.write_array(buffer, np.ascontiguousarray(array), version=(1, 0), allow_pickle=False)
    return buffer.getvalue()


def _decode_npy(name: str, content: bytes) -> np.ndarray:
    array = _read_npy(content)
    if array.dtype != _stored_dtype(name):
        raise ValueError(f"the array has dtype {array.dtype}, expected {_stored_dtype(name)}.")
    return array


def _read_npy(content: bytes) -> np.ndarray:
    """Return the array of an npy file; raises ValueError if it is damaged."""
    try:
        return _read_whole_npy(content)
    except (tokenize.TokenError, SyntaxError, RecursionError, MemoryError) as error:  # numpy parses the header as Python
        raise ValueError(f"the header cannot be parsed ({type(error).__name__}).") from error


def _read_whole_npy(content: bytes) -> np.ndarray:
    """Return the array of an npy file of version 1.0; its header is parsed once for all files with equal headers."""
    start = len(NPY_MAGIC) + 4  # magic, version (1, 0), length of the header
    if content[len(NPY_MAGIC) : start - 2] != b"\x01\x00":
        return np.lib.format.read_array(io.BytesIO(content), allow_pickle=False)
    end = start + int.from_bytes(content[start - 2 : start], "little")
    shape, dtype, count = _parse_npy_header(content[:end])
    if len(content) != end + count * dtype.itemsize:
        raise ValueError(f"the array of shape {shape} needs {count * dtype.itemsize} bytes, there are {len(content) - end}.")
    return np.frombuffer(content, dtype, count, offset=end).reshape(shape).copy()  # a copy can be written to


@lru_cache(maxsize=256)  # one per modality and shape; parsing takes longer than reading a small array
def _parse_npy_header(header: bytes) -> tuple[tuple[int, ...], np.dtype, int]:
    file = io.BytesIO(header)
    np.lib.format.read_magic(file)
    shape, fortran_order, dtype = np.lib.format.read_array_header_1_0(file)
    if fortran_order or dtype.hasobject:
        raise ValueError("the array is in Fortran order or contains objects; `encode` writes neither.")
    return shape, dtype, math.prod(shape)


def _stored_dtype(name: str) -> str:
    if name in EXTRA_DTYPES:
        return EXTRA_DTYPES[name]
    return LABELS[name].dtype if name in LABELS and LABELS[name].extension == "npy" else DTYPE_OF_TOKENS


def _cast(array: np.ndarray, dtype: str) -> np.ndarray:
    """Return `array` as `dtype`; raises ValueError when integers would overflow or values would not be finite."""
    if np.issubdtype(dtype, np.integer):
        if not np.issubdtype(array.dtype, np.integer):
            raise ValueError(f"expected integers, got {array.dtype}.")
        limits = np.iinfo(dtype)
        if array.size and (array.min() < limits.min or array.max() > limits.max):
            raise ValueError(
                f"values range from {array.min()} to {array.max()}; allowed for {dtype}: {limits.min} to {limits.max}."
            )
    elif not np.issubdtype(array.dtype, np.floating):
        raise ValueError(f"expected an array of floats, got {array.dtype}.")
    with np.errstate(over="ignore"):
        stored = array.astype(dtype, copy=False)
    if not np.isfinite(stored).all():
        raise ValueError(f"it has values that are not finite in {dtype}.")
    return stored


def _encode_text(name: str, value: Any) -> bytes:
    if not isinstance(value, str):
        raise ValueError(f"expected text, got {_describe(value)}.")
    return encode_captions(value)


def _decode_text(name: str, content: bytes) -> str:
    return decode_captions(content)


def _encode_json(name: str, value: Any) -> bytes:
    stored = _with_boxes(value) if _has_boxes(name, value) else value
    return json.dumps(stored, sort_keys=True, separators=(",", ":"), allow_nan=False, ensure_ascii=False).encode("utf-8")


def _decode_json(name: str, content: bytes) -> Any:
    value = json.loads(content.decode("utf-8"))
    if _has_boxes(name, value):
        for instance in value["instances"]:
            instance.pop("boxes", None)
    return value


def _has_boxes(name: str, value: Any) -> bool:
    return name in LABELS and LABELS[name].kind == "boxes" and isinstance(value, dict) and "instances" in value


def _with_boxes(value: dict[str, Any]) -> dict[str, Any]:
    """Return instances with their box a second time as `boxes`, the name that the data loader of 4M reads."""
    instances = [one | {"boxes": one["box"]} if "box" in one else one for one in value["instances"]]
    return value | {"instances": instances}


def _describe(value: Any) -> str:
    return f"{value.dtype} of shape {value.shape}" if isinstance(value, np.ndarray) else type(value).__name__


_ENCODERS: dict[str, Callable[[str, Any], bytes]] = {
    "png": _encode_png,
    "npy": _encode_npy,
    "txt": _encode_text,
    "json": _encode_json,
}
_DECODERS: dict[str, Callable[[str, bytes], Any]] = {
    "png": _decode_png,
    "npy": _decode_npy,
    "txt": _decode_text,
    "json": _decode_json,
}
