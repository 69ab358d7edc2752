"""Checkpoints of tensors that are sharded over processes: torch.distributed.checkpoint (DCP) with safetensors and JSON files.

The format is DCP's for the Hugging Face hub instead of DCP's own, because the latter pickles its metadata. Any number
of processes reads what another number wrote.
"""

import shutil
from collections.abc import Callable
from concurrent.futures import Future
from pathlib import Path
from typing import Any

import torch.distributed as dist
import torch.distributed.checkpoint as dcp
from torch import Tensor
from torch.distributed.checkpoint.api import CheckpointException
from torch.distributed.checkpoint.hf_storage import HuggingFaceStorageReader, HuggingFaceStorageWriter

from fourfold.digests import record_digests
from fourfold.storage import PARTIAL_MARK, read_json, write_json

PROGRESS_FILE = "progress.json"


def new_group() -> Any:
    """Return a process group for writing: messages of the writing thread must not mix with those of training."""
    return dist.new_group(backend="gloo")


def write(
    tensors: dict[str, Tensor], header: dict[str, Any], path: Path, group: Any, on_written: Callable[[], None]
) -> "Future[Any]":
    """Copy the tensors and start to write them into the folder `path`, which is complete or absent.

    Args:
        tensors: tensors by name; every process passes its shards.
        header: step and progress, JSON values.
        path: the folder.
        group: process group of `new_group`.
        on_written: called on the first process once the folder is complete.

    Returns:
        A future that is done when everything is written.
    """
    writer = _Writer(path, header, on_written)
    saved = dcp.async_save(tensors, storage_writer=writer, process_group=group)
    return saved if isinstance(saved, Future) else saved.upload_completion


def read(path: Path, tensors: dict[str, Tensor]) -> dict[str, Any]:
    """Fill tensors in place; return step and progress.

    Raises:
        ValueError: if the folder is damaged or does not hold these tensors.
    """
    try:
        dcp.load(tensors, storage_reader=HuggingFaceStorageReader(str(path)), no_dist=not dist.is_initialized())
    except (CheckpointException, RuntimeError, OSError) as error:
        raise ValueError(f"Cannot read {path} ({error}). Delete it; training resumes from an older checkpoint.") from error
    return read_json(path / PROGRESS_FILE)


class _Writer(HuggingFaceStorageWriter):
    """Writes to a temporary folder, which the first process renames after every process has written its shards."""

    def __init__(self, path: Path, header: dict[str, Any], on_written: Callable[[], None]) -> None:
        self._final, self._header, self._on_written = path, header, on_written
        self._partial = path.with_name(f"{PARTIAL_MARK}{path.name}")
        super().__init__(str(self._partial), save_distributed=True)

    def finish(self, metadata: Any, results: Any) -> None:
        """Complete the folder; DCP calls it on the first process only, after all have written."""
        super().finish(metadata, results)
        write_json(self._partial / PROGRESS_FILE, self._header)
        record_digests(self._partial, *(file.name for file in sorted(self._partial.iterdir()) if file.is_file()))
        if self._final.exists():
            # the same step of the same run is already complete: never delete it, not even to replace it
            shutil.rmtree(self._partial)
        else:
            self._partial.rename(self._final)
        self._on_written()
