"""Checkpoints of a training run: tensors and progress in one unit that is either complete or absent.

`step-00001200.safetensors` holds the tensors of model, optimizer and average under prefixes (`model/encoder.0...`), and
the rest (step, cursor, metrics) as JSON in the header of the file. A run whose tensors are sharded over processes
writes a folder `step-00001200` instead (`sharded_checkpoints.py`). Any number of processes, sharded or not, reads
either. Nothing is unpickled.

A checkpoint is removed only after its successor is complete and on disk: it is written under a temporary name, flushed,
renamed, and the folder is flushed before older ones are deleted.
"""

import json
import logging
import os
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
TensorGroups = dict[str, dict[str, Tensor]]  # group ("model", "optimizer", "average", ...) → name → tensor


@dataclass
class Checkpoint:
    """Everything that the remaining steps of a run depend on.

    Attributes:
        step: number of finished steps.
        tensors: tensors by group and name.
        progress: the rest, as JSON values.
    """

    step: int
    tensors: TensorGroups
    progress: dict[str, Any] = field(default_factory=dict)

    def header(self) -> dict[str, Any]:
        """Return step and progress as JSON values."""
        return {"step": self.step, **self.progress}


class CheckpointWriter:
    """Writes checkpoints of one run in the background, one at a time, and keeps the newest `keep`.

    Whole tensors are written by the first process, sharded ones by every process. An error while writing is raised by
    the next `save` or `wait`.

    Args:
        folder: folder of the run.
        keep: number of complete checkpoints to keep, at least 1.
        processes: the processes that train together.
        on_saved: called in the background with the step of each complete checkpoint, on the first process.
    """

    def __init__(
        self,
        folder: Path,
        keep: int = 1,
        processes: ProcessGroup | None = None,
        on_saved: Callable[[int], None] | None = None,
    ) -> None:
        self.folder, self.keep, self.processes, self.on_saved = folder, keep, processes or ProcessGroup(), on_saved
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="checkpoint")
        self._pending: Future[Any] | None = None
        self._group: Any = None

    def save(self, checkpoint: Checkpoint) -> None:
        """Copy the tensors, then write them in the background. Every process must call it."""
        self.wait()
        tensors = flattened(checkpoint.tensors)
        if any(is_sharded(tensor) for tensor in tensors.values()):
            # imported late: torch.distributed.checkpoint takes seconds, and most runs do not need it
            from fourfold.training import sharded_checkpoints

            self._group = self._group or sharded_checkpoints.new_group()
            path, on_written = _path(self.folder, checkpoint.step), partial(self._on_written, checkpoint.step)
            self._pending = sharded_checkpoints.write(tensors, checkpoint.header(), path, self._group, on_written)
        elif self.processes.is_first:
            copies = {name: _storable(tensor) for name, tensor in tensors.items()}
            self._pending = self._thread.submit(self._write, checkpoint.step, copies, checkpoint.header())

    def wait(self) -> None:
        """Wait until everything is written; raise the error of a failed write."""
        pending, self._pending = self._pending, None
        if pending is not None:
            pending.result()

    def _write(self, step: int, tensors: dict[str, Tensor], header: dict[str, Any]) -> None:
        path = _path(self.folder, step).with_suffix(SUFFIX)
        _save_file(tensors, path, {HEADER_KEY: json.dumps(header, sort_keys=True)})
        self._on_written(step)

    def _on_written(self, step: int) -> None:
        """Delete old checkpoints now that a newer one is complete; runs on the first process."""
        _flush_folder(self.folder)
        for old in _checkpoints(self.folder)[: -self.keep]:
            shutil.rmtree(old) if old.is_dir() else old.unlink()
        if self.on_saved:
            self.on_saved(step)


def save_checkpoint(checkpoint: Checkpoint, folder: Path, keep: int = 1) -> Path:
    """Write a checkpoint of whole tensors, delete all but the newest `keep`, and return the path of the new one."""
    writer = CheckpointWriter(folder, keep)
    writer.save(checkpoint)
    writer.wait()
    return _path(folder, checkpoint.step).with_suffix(SUFFIX)


def restore(path: Path, tensors: TensorGroups) -> dict[str, Any]:
    """Fill tensors, whole or sharded, from a checkpoint in place; return step and progress.

    Raises:
        ValueError: if the checkpoint is damaged, or does not hold tensors of these names and shapes.
    """
    if path.is_dir():
        from fourfold.training import sharded_checkpoints

        return sharded_checkpoints.read(path, flattened(tensors))
    checkpoint = load_checkpoint(path)
    stored = flattened(checkpoint.tensors)
    with torch.no_grad():
        for name, tensor in flattened(tensors).items():
            if name not in stored or stored[name].shape != tensor.shape:
                raise ValueError(
                    f"{path} has no {name} of shape {tuple(tensor.shape)}: it belongs to another model. Use another folder."
                )
            local(tensor).copy_(shard_like(stored[name].to(tensor.device), tensor))
    return checkpoint.header()


def load_checkpoint(path: Path) -> Checkpoint:
    """Read a checkpoint of whole tensors onto the CPU.

    Raises:
        ValueError: if the file is damaged.
    """
    tensors: TensorGroups = {}
    try:
        with safe_open(path, framework="pt") as file:
            progress = json.loads(file.metadata()[HEADER_KEY])
            for name in file.keys():  # noqa: SIM118 (not a dict)
                group, rest = name.split("/", 1)
                tensors.setdefault(group, {})[rest] = file.get_tensor(name)
    except (SafetensorError, KeyError, TypeError, json.JSONDecodeError) as error:
        raise ValueError(
            f"{path} is not a complete checkpoint ({error}). Delete it; training resumes from an older one."
        ) from error
    return Checkpoint(progress.pop("step"), tensors, progress)


def latest_checkpoint(folder: Path) -> Path | None:
    """Return the newest checkpoint of a folder; None if there is none."""
    return next(reversed(_checkpoints(folder)), None)


def flattened(groups: TensorGroups) -> dict[str, Tensor]:
    """Return all tensors by `group/name`."""
    return {f"{group}/{name}": tensor for group, tensors in groups.items() for name, tensor in tensors.items()}


def save_tensors(tensors: dict[str, Tensor], path: Path) -> None:
    """Write named tensors to a file that is either complete or absent."""
    _save_file({name: _storable(tensor) for name, tensor in tensors.items()}, path)


def load_tensors(path: Path) -> dict[str, Tensor]:
    """Read the tensors that `save_tensors` wrote.

    Raises:
        ValueError: if the file is damaged.
    """
    try:
        return load_file(path)
    except SafetensorError as error:
        raise ValueError(f"{path} is damaged ({error}). Delete its folder and run the step that writes it again.") from error


def _path(folder: Path, step: int) -> Path:
    return folder / f"step-{step:08d}"


def _checkpoints(folder: Path) -> list[Path]:
    """Return all complete checkpoints of a folder, oldest first."""
    return sorted(folder.glob(PATTERN), key=lambda path: path.stem)


def _flush_folder(folder: Path) -> None:
    """Make a rename in this folder durable, so that a power cut cannot undo it after older files were deleted."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _save_file(tensors: dict[str, Tensor], path: Path, header: dict[str, str] | None = None) -> None:
    # safetensors writes through its own temporary file, which a killed process leaves behind; in a folder with the
    # mark of partial files, `claim` removes it
    with atomic_path(path) as temporary, TemporaryDirectory(prefix=PARTIAL_MARK, dir=temporary.parent) as folder:
        save_file(tensors, Path(folder) / path.name, header)
        (Path(folder) / path.name).replace(temporary)
        temporary.chmod(0o644)  # safetensors makes files that only their owner may read


def _storable(tensor: Tensor) -> Tensor:
    """Return a contiguous copy on the CPU: safetensors refuses tensors that share memory, such as tied weights."""
    return tensor.detach().to("cpu", memory_format=torch.contiguous_format, copy=True)
