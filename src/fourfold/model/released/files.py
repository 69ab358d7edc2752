"""Read and write files of released 4M models and tokenizers: safetensors whose metadata maps keys to `str()` of values."""

import ast
import json
import struct
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import safetensors.torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from fourfold.storage import read_json, write_bytes

SHOWN = 5  # names in an error message
HUB_WEIGHTS, HUB_CONFIG = "model.safetensors", "config.json"  # file names of a model hub
NAMES = {"true": True, "false": False, "null": None, "none": None}  # as YAML and JSON spell them


def read_released(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Return the tensors by name, and the values of the metadata.

    If the header has no settings, they are read from `config.json` in the same folder, as model hubs store them. A tensor that
    a file stores once for several names is returned under each of them.

    Args:
        path: The safetensors file, or a folder with `model.safetensors`.

    Raises:
        ValueError: The file is missing or is not a safetensors file.
    """
    path = path / HUB_WEIGHTS if path.is_dir() else path
    try:
        with safe_open(path, "pt") as file:
            tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118 - not a dict
            header = dict(file.metadata() or {})
    except (SafetensorError, FileNotFoundError) as error:
        raise ValueError(f"{path} is not a released safetensors file: {error}") from error
    tensors |= {key: tensors[same] for key, same in header.items() if same in tensors and key not in tensors}
    values = {key: _value(text) for key, text in header.items() if key != "format" and text not in tensors}
    beside = path.with_name(HUB_CONFIG)
    return tensors, dict(read_json(beside)) if not values and beside.is_file() else values


def check_tensors(found: Mapping[str, Tensor], wanted: Mapping[str, Tensor], path: Path) -> None:
    """Check that the tensors are those that the metadata implies.

    Raises:
        ValueError: A tensor is missing, superfluous, or has another shape.
    """
    for what, keys in (
        ("lacks", wanted.keys() - found.keys()),
        ("has, beyond what its metadata implies,", found.keys() - wanted.keys()),
    ):
        if keys:
            some = ", ".join(sorted(keys)[:SHOWN]) + (f" and {len(keys) - SHOWN} more" if len(keys) > SHOWN else "")
            raise ValueError(f"{path} {what} {some}.")
    for key, tensor in wanted.items():
        if tensor.shape != found[key].shape:
            shapes = tuple(found[key].shape), tuple(tensor.shape)
            raise ValueError(f"{path}: {key} has the shape {shapes[0]}; its metadata implies {shapes[1]}.")


def write_released(tensors: dict[str, Tensor], values: dict[str, Any], path: Path) -> None:
    """Write tensors and metadata; equal content gives equal bytes.

    The library writes metadata in the order of a hash table, which differs between processes. So the header is written here.
    """
    plain = safetensors.torch.save({name: tensor.contiguous().clone() for name, tensor in sorted(tensors.items())})
    length = struct.unpack("<Q", plain[:8])[0]
    metadata = {key: str(value) for key, value in sorted(values.items())}
    text = json.dumps({"__metadata__": metadata, **json.loads(plain[8 : 8 + length])}, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    write_bytes(path, struct.pack("<Q", len(text)) + text + plain[8 + length :])


def image_size(value: Any) -> tuple[int, int]:
    """Return height and width of a released `image_size`, one number or a pair.

    Raises:
        ValueError: It is neither, or not positive.
    """
    sides = (value, value) if isinstance(value, int) else tuple(value) if isinstance(value, tuple | list) else ()
    if len(sides) != 2 or not all(isinstance(side, int) and side > 0 for side in sides):
        raise ValueError(f"image_size is {value!r}; one positive number or a pair of them is allowed.")
    return sides


def image_size_value(size: Sequence[int]) -> int | list[int]:
    """Return height and width as released files store them: one number if they are equal. Inverse of `image_size`."""
    height, width = size
    return height if height == width else [height, width]


def _value(text: str) -> Any:
    try:
        return ast.literal_eval(text)
    except (SyntaxError, ValueError):
        return NAMES.get(text.lower(), text)  # other names, e.g. SiLU
