"""The processes that train together: rank, size and the few collective operations that training needs. torchrun starts them."""

import atexit
import os
from dataclasses import dataclass
from datetime import timedelta
from typing import TypeVar

import torch
import torch.distributed as dist
from torch import Tensor

T = TypeVar("T")
TIMEOUT = timedelta(minutes=60)  # a process may wait this long while the first one writes models


@dataclass(frozen=True)
class ProcessGroup:
    """Process `rank` of `size`. A single process (the default) communicates nothing."""

    rank: int = 0
    size: int = 1

    @classmethod
    def join(cls) -> "ProcessGroup":
        """Connect to the processes that torchrun started and return the group; a single process without torchrun.

        If there are GPUs, each process takes the GPU of its local rank.

        Raises:
            ValueError: if there are fewer GPUs than processes on this machine.
        """
        size, rank = int(os.environ.get("WORLD_SIZE", "1")), int(os.environ.get("RANK", "0"))
        if size == 1:
            return cls()
        on_gpu = torch.cuda.is_available()
        if on_gpu:
            _take_gpu(int(os.environ.get("LOCAL_RANK", "0")))
        if not dist.is_initialized():
            dist.init_process_group("cpu:gloo,cuda:nccl" if on_gpu else "gloo", timeout=TIMEOUT)
            atexit.register(_disconnect)
        return cls(rank, size)

    @property
    def is_first(self) -> bool:
        """Whether this process writes and reports."""
        return self.rank == 0

    def sum(self, tensor: Tensor) -> Tensor:
        """Return the sum of `tensor` over all processes."""
        if self.size > 1:
            tensor = tensor.clone()
            dist.all_reduce(tensor)
        return tensor

    def share_of_mean(self, mean: Tensor, own_count: int, total_count: int) -> Tensor:
        """Return the share of this process in a mean over all processes.

        Args:
            mean: mean over the samples of this process.
            own_count: number of these samples.
            total_count: number of samples of all processes.
        """
        return mean if self.size == 1 else mean * (own_count / total_count)

    def broadcast(self, value: T) -> T:
        """Return the value of the first process; it must be picklable."""
        if self.size == 1:
            return value
        values = [value]
        dist.broadcast_object_list(values, src=0)
        return values[0]

    def barrier(self) -> None:
        """Wait until all processes have reached this call."""
        if self.size > 1:
            dist.barrier()


def _take_gpu(local_rank: int) -> None:
    count = torch.cuda.device_count()
    if local_rank >= count:
        raise ValueError(
            f"There is no GPU for local rank {local_rank}: found {count}. Start torchrun --nproc-per-node={count}."
        )
    torch.cuda.set_device(local_rank)


def _disconnect() -> None:
    if dist.is_initialized():
        dist.destroy_process_group()
