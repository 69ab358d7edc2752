"""One input value of a request to a registered model: JSON becomes an array, text or bytes, or is refused in one sentence.

The file is stored with the model, so it imports neither Kedro nor this repository.
"""

import base64
import binascii
import re
from typing import Any

import numpy as np

TEXT, JSON = "str", "json"  # kinds of input that are not arrays; any other kind is the name of a NumPy dtype
MAX_NUMBERS = 2_000_000  # of one array written as JSON; longer lists take seconds to read
DATA_URL = re.compile(r"^data:[\w.+-]+/[\w.+-]+;base64,")


def read(name: str, kind: str, value: Any) -> Any:
    """Return a value as the model takes it.

    Args:
        name: The input, for messages.
        kind: `str`, `json` or a NumPy dtype.
        value: Text for `str`; anything for `json`; for a dtype an array, nested lists of numbers, or a file as bytes or as
            base64 text (also a data URL), which stays bytes.

    Raises:
        ValueError: One sentence about what is wrong.
    """
    if kind == JSON:
        return value
    if kind == TEXT:
        if not isinstance(value, str):
            raise ValueError(f"Input {name!r} must be text, got {_described(value)}.")
        return str(value)
    if isinstance(value, bytes | bytearray):
        return bytes(value)
    if isinstance(value, str):
        return _decoded(name, value)
    return _array(name, value, np.dtype(kind))


def _decoded(name: str, text: str) -> bytes:
    try:
        return base64.b64decode(DATA_URL.sub("", text, count=1), validate=True)
    except (binascii.Error, ValueError):
        raise ValueError(
            f"Input {name!r} is a text that is not base64; it must be the base64 of a file, or nested lists of numbers."
        ) from None


def _array(name: str, value: Any, dtype: np.dtype[Any]) -> np.ndarray[Any, Any]:
    if isinstance(value, list | tuple) and (count := _count(value)) > MAX_NUMBERS:
        raise ValueError(
            f"Input {name!r} has about {count:,} numbers; up to {MAX_NUMBERS:,} are allowed. Send base64 of a PNG or npy file."
        )
    try:
        found = np.asarray(value)
        if found.dtype == object:  # e.g. rows of a table that hold arrays
            found = np.asarray(found.tolist())
    except ValueError:  # NumPy refuses lists of different lengths
        raise ValueError(f"Input {name!r} must be nested lists of equal lengths with numbers only.") from None
    if found.dtype.kind not in "iuf" or not found.ndim:
        what = "null or text" if found.dtype.kind in "OUS" and found.ndim else _described(value)
        raise ValueError(f"Input {name!r} must be nested lists of numbers, got {what}.")
    return _integers(name, found, dtype) if dtype.kind in "iu" else _floats(name, found, dtype)


def _integers(name: str, found: np.ndarray[Any, Any], dtype: np.dtype[Any]) -> np.ndarray[Any, Any]:
    """Return numbers as integers; floats from 0 to 1 would all become 0 or 1, so they are refused."""
    low, high = np.iinfo(dtype).min, np.iinfo(dtype).max
    bounds = f"whole numbers from {low} to {high}"
    if not found.size:
        raise ValueError(f"Input {name!r} is empty; it must have numbers.")
    if found.dtype.kind == "f":
        if not np.isfinite(found).all():
            raise ValueError(f"Input {name!r} has null, NaN or infinite numbers; {dtype} allows {bounds}.")
        if found.max() <= 1 or (found != np.rint(found)).any():
            advice = " Multiply by 255 and round." if found.min() >= 0 and found.max() <= 1 else ""
            raise ValueError(
                f"Input {name!r} has decimal numbers from {found.min():g} to {found.max():g}; {dtype} allows {bounds}.{advice}"
            )
    if found.min() < low or found.max() > high:
        raise ValueError(f"Input {name!r} has numbers from {found.min():g} to {found.max():g}; {dtype} allows {bounds}.")
    return found.astype(dtype)


def _floats(name: str, found: np.ndarray[Any, Any], dtype: np.dtype[Any]) -> np.ndarray[Any, Any]:
    if not found.size:
        raise ValueError(f"Input {name!r} is empty; it must have numbers.")
    limit = float(np.finfo(dtype).max)
    if not np.isfinite(found).all() or np.abs(found).max() > limit:
        raise ValueError(f"Input {name!r} must have finite numbers between {-limit:g} and {limit:g} ({dtype}), without null.")
    return found.astype(dtype)


def _count(value: Any) -> int:
    """Return the number of elements of nested lists, estimated from the first list on each level."""
    count = 1
    while isinstance(value, list | tuple) and value:
        count, value = count * len(value), value[0]
    return count


def _described(value: Any) -> str:
    names = {bool: "true or false", int: "a number", float: "a number", str: "text", list: "a list", dict: "an object"}
    return names.get(type(value), "nothing" if value is None else f"a value of type {type(value).__name__}")
