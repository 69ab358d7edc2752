"""A training run on disk: tensors and progress together, so that a checkpoint is whole or absent.

`step-00001200.safetensors` holds the tensors of model, optimizer and average under prefixes (`model/encoder.0...`); the rest
(step, cursor, figures) is JSON in the file's own header. A run whose tensors are sharded over processes writes a folder
`step-00001200` instead: a safetensors file a process (torch.distributed.checkpoint) and `progress.json`. Either is read by any
number of processes, sharded or not. Nothing is unpickled.
"""

import json
import logging
import shutil
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor

from fourfold.storage import PARTIAL_MARK, atomic_path
from fourfold.training.parallel import is_sharded, local, shard_like
from fourfold.training.process_group import ProcessGroup

logger = logging.getLogger(__name__)
PATTERN = "step-[0-9]*"
SUFFIX = ".safetensors"
HEADER_KEY = "progress"
Parts = dict[str, dict[str, Tensor]]  # part ("model", "optimizer", "average", ...) → name → tensor


@dataclass
class Checkpoint:
    """Everything that the rest of a run depends on."""

    step: int  # steps done
    tensors: Parts
    progress: dict[str, Any] = field(default_factory=dict)  # JSON values

    def header(self) -> dict[str, Any]:
        """Return step and progress as JSON values."""
        return {"step": self.step, **self.progress}


class CheckpointWriter:
    """Writes checkpoints of one run while it goes on, one at a time, and keeps the newest `keep`; `written` is told of each.

    Whole tensors are written by the first process alone, sharded ones by each its part. What a write raises is raised by the
    next `save` or `wait`.
    """

    def __init__(
        self, folder: Path, keep: int = 1, world: ProcessGroup | None = None, written: Callable[[int], None] | None = None
    ) -> None:
        self.folder, self.keep, self.world, self.written = folder, keep, world or ProcessGroup(), written
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="checkpoint")
        self._pending: Future[Any] | None = None
        self._group: Any = None

    def save(self, checkpoint: Checkpoint) -> None:
        """Copy the tensors, then write them behind the back of training. Every process must call it."""
        self.wait()
        if any(is_sharded(tensor) for tensors in checkpoint.tensors.values() for tensor in tensors.values()):
            from fourfold.training import sharded_checkpoints

            self._group = self._group or sharded_checkpoints.new_group()
            path, done = _path(self.folder, checkpoint.step), partial(self._done, checkpoint.step)
            self._pending = sharded_checkpoints.write(checkpoint, path, self._group, done)
        elif self.world.is_first:
            flat = {name: _storable(tensor) for name, tensor in flattened(checkpoint.tensors).items()}
            self._pending = self._thread.submit(self._write, checkpoint.step, flat, checkpoint.header())

    def wait(self) -> None:
        """Return when all is written; raises what went wrong."""
        pending, self._pending = self._pending, None
        if pending is not None:
            pending.result()

    def _write(self, step: int, flat: dict[str, Tensor], header: dict[str, Any]) -> None:
        _save_file(flat, _path(self.folder, step).with_suffix(SUFFIX), {HEADER_KEY: json.dumps(header, sort_keys=True)})
        self._done(step)

    def _done(self, step: int) -> None:
        """Forget old checkpoints now that a newer one is whole; runs on the first process."""
        for old in _all(self.folder)[: -self.keep]:
            shutil.rmtree(old) if old.is_dir() else old.unlink()
        if self.written:
            self.written(step)


def save_checkpoint(checkpoint: Checkpoint, folder: Path, keep: int = 1) -> Path:
    """Write a checkpoint of whole tensors, then remove all but the newest `keep`; return its path when it is there."""
    writer = CheckpointWriter(folder, keep)
    writer.save(checkpoint)
    writer.wait()
    return _path(folder, checkpoint.step).with_suffix(SUFFIX)


def restore(path: Path, tensors: Parts) -> dict[str, Any]:
    """Fill tensors, whole or sharded, from a checkpoint in place; return step and progress.

    Raises ValueError that names the checkpoint when it is damaged, or is not one of these tensors.
    """
    if path.is_dir():
        from fourfold.training import sharded_checkpoints

        return sharded_checkpoints.read(path, tensors)
    checkpoint = load_checkpoint(path)
    found = flattened(checkpoint.tensors)
    with torch.no_grad():
        for name, tensor in flattened(tensors).items():
            if name not in found or found[name].shape != tensor.shape:
                raise ValueError(
                    f"{path} has no {name} of shape {tuple(tensor.shape)}: it is of another model. Use another folder."
                )
            local(tensor).copy_(shard_like(found[name].to(tensor.device), tensor))
    return checkpoint.header()


def load_checkpoint(path: Path) -> Checkpoint:
    """Read a checkpoint of whole tensors onto the CPU; raises ValueError that names the file when it is damaged."""
    tensors: Parts = {}
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
    return next(reversed(_all(folder)), None)


def flattened(parts: Parts) -> dict[str, Tensor]:
    """Return all tensors by `part/name`."""
    return {f"{part}/{name}": tensor for part, tensors in parts.items() for name, tensor in tensors.items()}


def save_tensors(tensors: dict[str, Tensor], path: Path) -> None:
    """Write named tensors as a file that is whole or absent."""
    _save_file({name: _storable(tensor) for name, tensor in tensors.items()}, path)


def load_tensors(path: Path) -> dict[str, Tensor]:
    """Read what `save_tensors` wrote; raises ValueError that names the file when it is damaged."""
    try:
        return load_file(path)
    except SafetensorError as error:
        raise ValueError(f"{path} is damaged ({error}). Delete its folder and run the step that writes it again.") from error


def _path(folder: Path, step: int) -> Path:
    return folder / f"step-{step:08d}"


def _all(folder: Path) -> list[Path]:
    return sorted(folder.glob(PATTERN), key=lambda path: path.stem)


def _save_file(tensors: dict[str, Tensor], path: Path, header: dict[str, str] | None = None) -> None:
    with atomic_path(path) as temporary, TemporaryDirectory(prefix=PARTIAL_MARK, dir=temporary.parent) as folder:
        # in a folder, since the library has a temporary file of its own, which a killed process leaves: `claim` clears folders
        save_file(tensors, Path(folder) / path.name, header)
        (Path(folder) / path.name).replace(temporary)
        temporary.chmod(0o644)  # it leaves a file that its owner alone may read


def _storable(tensor: Tensor) -> Tensor:
    """Return a copy with memory of its own: safetensors refuses tied weights, and a copy of each is harmless."""
    return tensor.detach().to("cpu", memory_format=torch.contiguous_format, copy=True)
