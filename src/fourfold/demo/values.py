"""Values of the model as the page shows them: images, texts, boxes, and the numbers under them."""

# H W image height and width

import base64
from collections.abc import Mapping
from typing import Any

import numpy as np

from fourfold.data.codecs import decode, encode, extension
from fourfold.data.ingestion.images import CleaningConfig, Unusable, clean_image
from fourfold.generation.serving import check_boxes
from fourfold.images import Drawing, data_url, draw
from fourfold.modalities import LABELS, base_name

NUMBERS = {"depth": "<f4", "classes": "u1"}  # by kind of label: the page colors these itself, so that it can name each pixel
SHOWN_SIDE = 512  # pixels per side of an opened image on the page; the model gets the file itself
READABLE = CleaningConfig(min_side=1, max_aspect_ratio=1e9)
MAX_SHOWN_NUMBERS = 12  # of a value without an image


def present(outputs: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """Return the outputs of `kedro serve`'s `/predict` (arrays as nested lists) by target, as the page shows them."""
    return {name: view(name, from_json(name, value)) for name, value in outputs.items()}


def from_json(name: str, value: Any) -> Any:
    """Return a value with nested lists as the array that the shards hold."""
    dtype = LABELS[base_name(name)].dtype
    return value if dtype in ("str", "json") else np.asarray(value, dtype=dtype)


def view(name: str, value: Any) -> dict[str, Any]:
    """Return one value as JSON for the page.

    Args:
        name: The label.
        value: As the shards hold it.

    Returns:
        `kind` of the label; `file` as in the shards (name and base64); and, as far as the kind has it, `image` (a data URL),
        `numbers` (depth in meters or class ids: dtype, shape, base64), `text` or `json`.
    """
    label = LABELS[base_name(name)]
    found: dict[str, Any] = {"kind": label.kind, "file": _file(label.name, value)}
    if isinstance(value, str):
        found["text"] = value
    elif not isinstance(value, np.ndarray):
        found["json"] = value
    if (dtype := NUMBERS.get(label.kind)) is not None:
        numbers = np.ascontiguousarray(value, dtype=dtype)
        return found | {"numbers": {"dtype": dtype, "shape": numbers.shape, "base64": _base64(numbers.tobytes())}}
    if label.kind != "boxes" and (image := draw(label.name, value, Drawing())) is not None:
        return found | {"image": data_url(image)}
    if isinstance(value, np.ndarray):
        first = ", ".join(f"{number:.3g}" for number in value.ravel()[:MAX_SHOWN_NUMBERS])
        return found | {"text": f"{value.dtype} {value.shape}: {first}, …"}
    return found


def opened(name: str, content: Any) -> dict[str, Any]:
    """Return an input in the form of `view`.

    Args:
        name: The label.
        content: The bytes of a file, which `file` then has unchanged, or an edited value as JSON, with arrays as nested lists.

    Raises:
        ValueError: It is no value of this label.
    """
    if name not in LABELS:
        raise ValueError(f"Unknown label {name!r}. Choose one of {', '.join(LABELS)}.")
    if not isinstance(content, bytes):
        return _edited(name, content)
    if LABELS[name].kind != "image":
        return view(name, decode(name, content))
    try:
        image = clean_image(content, READABLE, SHOWN_SIDE)
    except Unusable as reason:
        raise ValueError(f"The file cannot be used: {reason}. Use a JPEG, PNG, WebP, GIF, BMP or TIFF file.") from None
    return view(name, image) | {"file": {"name": f"{name}.image", "base64": _base64(content)}}


def _edited(name: str, value: Any) -> dict[str, Any]:
    if LABELS[name].kind == "boxes":
        check_boxes(name, value)
    try:
        return view(name, from_json(name, value))
    except (AttributeError, IndexError, KeyError, OverflowError, TypeError) as error:
        raise ValueError(
            f"The value is no {name!r} ({type(error).__name__}: {error}). Send it as the shards hold it."
        ) from error


def _file(name: str, value: Any) -> dict[str, str]:
    return {"name": f"{name}.{extension(name, value)}", "base64": _base64(encode(name, value))}


def _base64(content: bytes) -> str:
    return base64.b64encode(content).decode()
