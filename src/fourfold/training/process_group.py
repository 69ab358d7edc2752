"""The processes that train together: which one this is, and what they tell each other. `torchrun` starts them."""

import atexit
import os
from dataclasses import dataclass
from datetime import timedelta
from typing import TypeVar

import torch
import torch.distributed as dist
from torch import Tensor

T = TypeVar("T")
TIMEOUT = timedelta(minutes=60)  # a rank may wait while another writes models


@dataclass(frozen=True)
class ProcessGroup:
    """Process `rank` of `size`. Alone (the default) everything below does nothing."""

    rank: int = 0
    size: int = 1

    @classmethod
    def join(cls) -> "ProcessGroup":
        """Return this process's place among those that torchrun started, connected to them; alone without torchrun.

        Each process takes the GPU of its local rank if there are GPUs. Raises ValueError when there are too few.
        """
        size, rank = int(os.environ.get("WORLD_SIZE", "1")), int(os.environ.get("RANK", "0"))
        if size == 1:
            return cls()
        on_gpu = torch.cuda.is_available()
        if on_gpu:
            _take_gpu(int(os.environ.get("LOCAL_RANK", "0")))
        if not dist.is_initialized():
            dist.init_process_group("cpu:gloo,cuda:nccl" if on_gpu else "gloo", timeout=TIMEOUT)
            atexit.register(_leave)
        return cls(rank, size)

    @property
    def is_first(self) -> bool:
        """Whether this process is the one that writes and reports."""
        return self.rank == 0

    def sum(self, tensor: Tensor) -> Tensor:
        """Return the sum over all processes."""
        if self.size > 1:
            tensor = tensor.clone()
            dist.all_reduce(tensor)
        return tensor

    def part(self, mean: Tensor, mine: int, whole: int) -> Tensor:
        """Return the part that a mean over this process's samples, `mine` of `whole`, has in the mean over all."""
        return mean if self.size == 1 else mean * (mine / whole)

    def agreed(self, value: T) -> T:
        """Return what the first process has."""
        if self.size == 1:
            return value
        values = [value]
        dist.broadcast_object_list(values, src=0)
        return values[0]

    def wait(self) -> None:
        """Return when all processes have come here."""
        if self.size > 1:
            dist.barrier()


def _take_gpu(local_rank: int) -> None:
    if local_rank >= torch.cuda.device_count():
        raise ValueError(
            f"Local rank {local_rank} has no GPU: there are {torch.cuda.device_count()} here. Start torchrun with "
            f"--nproc-per-node={torch.cuda.device_count()}."
        )
    torch.cuda.set_device(local_rank)


def _leave() -> None:
    if dist.is_initialized():
        dist.destroy_process_group()
