"""Damage each tensor of a file in every way, and collect what a loader says about it."""

import logging
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor

MANY = 120  # tensors: of larger files every third is damaged
Load = Callable[[Path], Any]


def shorter(tensor: Tensor) -> Iterator[Tensor]:
    """Yield the tensor without the last entry of each axis."""
    yield from (tensor.narrow(axis, 0, size - 1) for axis, size in enumerate(tensor.shape) if size)


def longer(tensor: Tensor) -> Iterator[Tensor]:
    for axis, size in enumerate(tensor.shape):
        yield torch.cat([tensor, tensor.narrow(axis, size - 1, 1)], axis)


def other_dimensions(tensor: Tensor) -> Iterator[Tensor]:
    yield from (tensor.flatten() if tensor.ndim > 1 else tensor[None], tensor[None, None], tensor.flatten()[0])


def other_types(tensor: Tensor) -> Iterator[Tensor]:
    yield from (tensor.to(dtype) for dtype in (torch.int64, torch.float64, torch.bool, torch.uint8))


def damages(tensors: dict[str, Tensor]) -> Iterator[tuple[str, str, Tensor | None]]:
    """Yield (key, what was done, damaged tensor): each tensor is removed, and every third damaged in one other way in turn."""
    ways = (shorter, other_types, longer, other_dimensions)
    step = 1 if len(tensors) < MANY else 3
    for number, (key, tensor) in enumerate(sorted(tensors.items())[::step]):
        yield key, "removed", None
        if number % 3 == 0:
            way = ways[number // 3 % len(ways)]
            forms = list(way(tensor))
            yield key, way.__name__, forms[number // 12 % len(forms)]


def faults(tensors: dict[str, Tensor], metadata: dict[str, str], path: Path, load: Load) -> list[str]:
    """Return one line for each damaged file that is loaded, or whose error does not name the file once and the key."""
    found = []
    for key, done, changed in damages(tensors):
        rest = {name: other for name, other in tensors.items() if name != key}
        save_file(rest | ({} if changed is None else {key: changed.contiguous()}), path, metadata)
        try:
            load(path)
        except ValueError as error:
            text = str(error)
            if key not in text or text.count(str(path)) != 1 or "\n" in text:
                found.append(f"{key} {done}: {text}")
        except Exception as error:
            found.append(f"{key} {done}: {error!r}")
        else:
            found.append(f"{key} {done}: loaded")
    return found


def odd_settings(metadata: dict[str, str]) -> Iterator[dict[str, str]]:
    """Yield the metadata with one entry missing, or odd in one of several ways in turn."""
    odd = ("", "None", "-1", "0", "3.5", "[1, 'two']", "nonsense", "{}", "['caption'")
    for number, key in enumerate(sorted(metadata)):
        yield {name: text for name, text in metadata.items() if name != key}
        yield metadata | {key: odd[number % len(odd)]}


def unexpected_errors(tensors: dict[str, Tensor], metadata: dict[str, str], path: Path, load: Load) -> list[str]:
    """Return one line for each odd metadata that raises anything but one ValueError with the path."""
    found = []
    for changed in odd_settings(metadata):
        save_file(tensors, path, changed)
        try:
            load(path)
        except ValueError as error:
            if str(error).count(str(path)) != 1 or "\n" in str(error):
                found.append(f"{set(changed.items()) ^ set(metadata.items())}: {error}")
        except Exception as error:
            found.append(f"{set(changed.items()) ^ set(metadata.items())}: {error!r}")
    return found


def nonfinite_faults(tensors: dict[str, Tensor], metadata: dict[str, str], path: Path, load: Load, caplog: Any) -> list[str]:
    """Return the keys whose NaN or infinity gives no warning that names file and key; every eighth key is tried."""
    found = []
    for key, tensor in sorted(tensors.items())[::8]:
        if key.endswith("pos_emb"):
            continue  # not a sin-cos table any more: an error
        changed = tensor.clone()
        changed.view(-1)[-1] = float("nan") if len(key) % 2 else float("inf")
        save_file(tensors | {key: changed}, path, metadata)
        caplog.clear()
        with caplog.at_level(logging.WARNING):
            load(path)
        if not any(key in record.getMessage() and str(path) in record.getMessage() for record in caplog.records):
            found.append(key)
    return found
