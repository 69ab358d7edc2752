"""Checkpoints of a training run: tensors and progress in one unit that is either complete or absent.

`step-00001200.safetensors` holds the tensors of model, optimizer and average under prefixes (`model/encoder.0...`), and
the rest (step, cursor, metrics) as JSON in the header of the file. A run whose tensors are sharded over processes
writes a folder `step-00001200` instead (`sharded_checkpoints.py`). Any number of processes, sharded or not, reads
either. Nothing is unpickled.

A checkpoint is removed only after its successor is complete and on disk: it is written under a temporary name, flushed,
renamed, and the folder is flushed before older ones are deleted. `digests.json` records each; a run resumes from the
newest one that is as it was written.
"""

import json
import logging
import os
import shutil
from collections.abc import Callable, Collection, Iterable
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

from fourfold.digests import DIGESTS_FILE, check_digests, damage_of, forget_digests, is_intact, recorded_digests, recorded_path
from fourfold.storage import PARTIAL_MARK, read_json
from fourfold.training.parallel import is_sharded, local, shard_like
from fourfold.training.process_group import ProcessGroup

logger = logging.getLogger(__name__)
PATTERN = "step-[0-9]*"
PROGRESS_FILE = "progress.json"  # in the folder of a sharded one
OLDER = "It is removed; training resumes from an older checkpoint, or from the start."
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
        is_planned: tells by the step which checkpoints count for `keep`; one that does not (saved by time or at a
            SIGTERM) is removed after the next checkpoint, so that the files at the end do not depend on time.
    """

    def __init__(
        self,
        folder: Path,
        keep: int = 1,
        processes: ProcessGroup | None = None,
        on_saved: Callable[[int], None] | None = None,
        is_planned: Callable[[int], bool] = lambda step: True,
    ) -> None:
        self.folder, self.keep, self.processes, self.on_saved = folder, keep, processes or ProcessGroup(), on_saved
        self.is_planned = is_planned
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

    def close(self) -> None:
        """End the background thread, so that nothing writes into the folder afterwards; log the error of a failed write.

        For runs that fail with another error. Shares of a sharded checkpoint are not waited for: the processes that
        write the others may be gone.
        """
        self._thread.shutdown()
        if self._pending is not None and self._pending.done() and (error := self._pending.exception()):
            logger.error("A checkpoint could not be written to %s: %s", self.folder, error)

    def _write(self, step: int, tensors: dict[str, Tensor], header: dict[str, Any]) -> None:
        path = _path(self.folder, step).with_suffix(SUFFIX)
        _save_file(tensors, path, {HEADER_KEY: json.dumps(header, sort_keys=True)})
        self._on_written(step)

    def _on_written(self, step: int) -> None:
        """Delete old checkpoints now that a newer one is complete, and report it; runs on the first process."""
        self.remove_old()
        if self.on_saved:
            self.on_saved(step)

    def remove_old(self) -> None:
        """Delete the checkpoints that the newest one replaces; the first process calls it, while nothing is being written."""
        _flush_folder(self.folder)
        if not (found := _checkpoints(self.folder)):
            return
        *older, _ = found
        planned = [path for path in older if self.is_planned(_step(path))]
        kept = planned[max(0, len(planned) - self.keep + 1) :]
        remove_checkpoints([path for path in older if path not in kept])
        _forget_removed(self.folder)


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


def latest_checkpoint(folder: Path, is_usable: Callable[[Path], bool] = lambda path: True) -> Path | None:
    """Return the newest usable checkpoint of a folder that is as it was written; None if there is none.

    Those that are newer are removed, with a log line that names each that was damaged or has no digest.
    """
    for path in reversed(_checkpoints(folder)):
        if _is_whole(path) and is_usable(path):
            return path
        remove_checkpoints([path])
    return None


def read_progress(path: Path) -> dict[str, Any]:
    """Return step and progress of a checkpoint without its tensors."""
    if path.is_dir():
        return dict(read_json(path / PROGRESS_FILE))
    with safe_open(path, framework="pt") as file:
        return dict(json.loads(file.metadata()[HEADER_KEY]))


def remove_checkpoints(paths: Iterable[Path]) -> None:
    """Delete checkpoints."""
    for path in paths:
        shutil.rmtree(path) if path.is_dir() else path.unlink()


def flattened(groups: TensorGroups) -> dict[str, Tensor]:
    """Return all tensors by `group/name`."""
    return {f"{group}/{name}": tensor for group, tensors in groups.items() for name, tensor in tensors.items()}


def save_tensors(tensors: dict[str, Tensor], path: Path) -> None:
    """Write named tensors to a file that is either complete or absent, and record its digest."""
    _save_file({name: _storable(tensor) for name, tensor in tensors.items()}, path)


def load_tensors(path: Path) -> dict[str, Tensor]:
    """Read the tensors that `save_tensors` wrote.

    Raises:
        ValueError: if the file changed after it was written.
    """
    if damage := damage_of(path.parent, path.name, recorded_digests(path.parent)):
        raise ValueError(f"{damage} Run the same command again: the training resumes before it.")
    return load_file(path)


def _is_whole(path: Path) -> bool:
    """Return whether a checkpoint is as it was written; if not, log a line that names it."""
    if not path.is_dir():
        recorded = _recorded_steps(path.parent)
        is_whole = is_intact(path.parent, path.name, remedy=OLDER)
        if not is_whole and path.name not in recorded:  # by another version, or the record was damaged
            logger.warning("%s has no digest in %s, so it cannot be checked. %s", path, DIGESTS_FILE, OLDER)
        return is_whole
    try:
        check_digests(path, OLDER, PROGRESS_FILE)
    except ValueError as error:
        logger.warning("%s", error)
        return False
    return True


def _recorded_steps(folder: Path) -> Collection[str]:
    try:
        return recorded_digests(folder)
    except ValueError:  # `is_intact` reports it
        return ()


def _forget_removed(folder: Path) -> None:
    """Remove from the record the checkpoints that are no longer there."""
    steps = [name for name in recorded_digests(folder) if Path(name).match(PATTERN)]
    forget_digests(folder, [name for name in steps if not (folder / name).exists()])


def _path(folder: Path, step: int) -> Path:
    return folder / f"step-{step:08d}"


def _step(path: Path) -> int:
    return int(path.stem.removeprefix("step-"))


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
    with (
        recorded_path(path.parent, path.name) as temporary,
        TemporaryDirectory(prefix=PARTIAL_MARK, dir=temporary.parent) as folder,
    ):
        save_file(tensors, Path(folder) / path.name, header)
        (Path(folder) / path.name).replace(temporary)
        temporary.chmod(0o644)  # safetensors makes files that only their owner may read


def _storable(tensor: Tensor) -> Tensor:
    """Return a contiguous copy on the CPU: safetensors refuses tensors that share memory, such as tied weights."""
    return tensor.detach().to("cpu", memory_format=torch.contiguous_format, copy=True)
