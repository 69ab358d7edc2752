"""Checkpoints of tensors that are sharded over processes: torch.distributed.checkpoint, stored as safetensors and JSON.

The format is DCP's for the Hugging Face hub rather than its own, because DCP's own keeps pickled metadata. What one number of
processes wrote, any other reads.
"""

import shutil
from collections.abc import Callable
from concurrent.futures import Future
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch.distributed as dist
import torch.distributed.checkpoint as dcp
from torch.distributed.checkpoint.api import CheckpointException
from torch.distributed.checkpoint.hf_storage import HuggingFaceStorageReader, HuggingFaceStorageWriter

from fourfold.storage import PARTIAL_MARK, read_json, write_json

if TYPE_CHECKING:
    from fourfold.training.checkpoints import Checkpoint, Parts

PROGRESS_FILE = "progress.json"


def new_group() -> Any:
    """Return a process group for writing: what is written in a thread must not meet what training sends at the same time."""
    return dist.new_group(backend="gloo")


def write(checkpoint: "Checkpoint", path: Path, group: Any, done: Callable[[], None]) -> "Future[Any]":
    """Copy the tensors and begin to write them into the folder `path`, whole or absent; `done` runs on the first process."""
    from fourfold.training.checkpoints import flattened

    writer = _Writer(path, checkpoint.header(), done)
    found = dcp.async_save(flattened(checkpoint.tensors), storage_writer=writer, process_group=group)
    return found if isinstance(found, Future) else found.upload_completion


def read(path: Path, tensors: "Parts") -> dict[str, Any]:
    """Fill tensors in place; return step and progress. Raises ValueError that names the folder when that is not possible."""
    from fourfold.training.checkpoints import flattened

    try:
        dcp.load(flattened(tensors), storage_reader=HuggingFaceStorageReader(str(path)), no_dist=not dist.is_initialized())
    except (CheckpointException, RuntimeError, OSError) as error:
        raise ValueError(f"{path} cannot be read ({error}). Delete it; training goes on from an older one.") from error
    return read_json(path / PROGRESS_FILE)


class _Writer(HuggingFaceStorageWriter):
    """Writes beside the final place; the first process renames once every process has written its part."""

    def __init__(self, path: Path, header: dict[str, Any], done: Callable[[], None]) -> None:
        self._final, self._header, self._done = path, header, done
        self._partial = path.with_name(f"{PARTIAL_MARK}{path.name}")
        super().__init__(str(self._partial), save_distributed=True)

    def finish(self, metadata: Any, results: Any) -> None:
        """Make the folder whole; runs on the first process alone, after all have written."""
        super().finish(metadata, results)
        write_json(self._partial / PROGRESS_FILE, self._header)
        if self._final.exists():
            shutil.rmtree(self._final)
        self._partial.rename(self._final)
        self._done()
