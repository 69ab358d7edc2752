"""Files of the released 4M models and tokenizers: safetensors whose metadata is a flat map of `str()` of Python values."""

import ast
import json
import struct
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import safetensors.torch
from safetensors import safe_open
from torch import Tensor

from fourfold.storage import write_bytes


def read_released(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Return the tensors by name, and the values of the metadata."""
    with safe_open(path, "pt") as file:
        tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118 - not a dict
        return tensors, {key: _value(text) for key, text in (file.metadata() or {}).items()}


def write_released(tensors: dict[str, Tensor], values: dict[str, Any], path: Path) -> None:
    """Write tensors and metadata, always in the same bytes.

    The library writes metadata in the order of a hash table, which is another one in each process.
    """
    plain = safetensors.torch.save({name: tensor.contiguous().clone() for name, tensor in sorted(tensors.items())})
    length = struct.unpack("<Q", plain[:8])[0]
    metadata = {key: str(value) for key, value in sorted(values.items())}
    text = json.dumps({"__metadata__": metadata, **json.loads(plain[8 : 8 + length])}, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    write_bytes(path, struct.pack("<Q", len(text)) + text + plain[8 + length :])


def image_size(value: Any) -> tuple[int, int]:
    """Return height and width of a released `image_size`, which is one number or a pair; raises ValueError otherwise."""
    sides = (value, value) if isinstance(value, int) else tuple(value) if isinstance(value, tuple | list) else ()
    if len(sides) != 2 or not all(isinstance(side, int) and side > 0 for side in sides):
        raise ValueError(f"image_size is {value!r}; one positive number or a pair of them is allowed.")
    return sides


def image_size_value(size: Sequence[int]) -> int | list[int]:
    """Return height and width as released files store them: one number when they are equal. Inverse of `image_size`."""
    height, width = size
    return height if height == width else [height, width]


def _value(text: str) -> Any:
    try:
        return ast.literal_eval(text)
    except (SyntaxError, ValueError):
        return text  # names, e.g. SiLU
