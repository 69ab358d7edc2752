"""A training run on disk: one file per checkpoint, tensors and progress together, so that it is whole or absent.

`step-00001200.safetensors` holds the tensors of model, optimiser and average under prefixes; the rest (step, cursor,
figures) is JSON in the file's own header. Nothing is unpickled.
"""

import json
import logging
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save
from torch import Tensor

from fourfold.storage import write_bytes

logger = logging.getLogger(__name__)
PATTERN = "step-*.safetensors"
HEADER_KEY = "progress"


@dataclass
class Checkpoint:
    """Everything that the rest of a run depends on."""

    step: int  # steps done
    tensors: dict[str, dict[str, Tensor]]  # part ("model", "optimizer", "average", ...) → name → tensor
    progress: dict[str, Any] = field(default_factory=dict)  # JSON values


def save_checkpoint(checkpoint: Checkpoint, folder: Path, keep: int = 1) -> Path:
    """Write a checkpoint, then remove all but the newest `keep`; return its path."""
    path = folder / f"step-{checkpoint.step:08d}.safetensors"
    flat = {f"{part}/{name}": tensor for part, tensors in checkpoint.tensors.items() for name, tensor in tensors.items()}
    header = {HEADER_KEY: json.dumps({"step": checkpoint.step, **checkpoint.progress}, sort_keys=True)}
    write_bytes(path, save({name: _storable(tensor) for name, tensor in flat.items()}, header))
    for old in sorted(folder.glob(PATTERN))[:-keep]:
        old.unlink()
    return path


def load_checkpoint(path: Path) -> Checkpoint:
    """Read a checkpoint onto the CPU; raises ValueError that names the file when it is damaged."""
    tensors: dict[str, dict[str, Tensor]] = {}
    try:
        with safe_open(path, framework="pt") as file:
            progress = json.loads(file.metadata()[HEADER_KEY])
            for name in file.keys():  # noqa: SIM118 (not a dict)
                part, rest = name.split("/", 1)
                tensors.setdefault(part, {})[rest] = file.get_tensor(name)
    except (SafetensorError, KeyError, TypeError, json.JSONDecodeError) as error:
        raise ValueError(
            f"{path} is not a whole checkpoint ({error}). Delete it; training goes on from an older one."
        ) from error
    return Checkpoint(progress.pop("step"), tensors, progress)


def latest_checkpoint(folder: Path) -> Path | None:
    """Return the newest checkpoint of a folder, None when there is none."""
    return max(folder.glob(PATTERN), default=None)


def save_tensors(tensors: dict[str, Tensor], path: Path) -> None:
    """Write named tensors as a file that is whole or absent."""
    write_bytes(path, save({name: _storable(tensor) for name, tensor in tensors.items()}))


def load_tensors(path: Path) -> dict[str, Tensor]:
    """Read what `save_tensors` wrote; raises ValueError that names the file when it is damaged."""
    try:
        return load_file(path)
    except SafetensorError as error:
        raise ValueError(f"{path} is damaged ({error}). Delete its folder and run the step that writes it again.") from error


def _storable(tensor: Tensor) -> Tensor:
    """Return a copy with memory of its own: safetensors refuses tied weights, and a copy of each is harmless."""
    return tensor.detach().to("cpu", memory_format=torch.contiguous_format, copy=True)
