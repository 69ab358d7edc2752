"""Distribution of a model over processes: whole on each (DDP) or in shards (FSDP2). Both learn the same.

DDP: Li et al., 2020 (arXiv 2006.15704); FSDP2: `torch.distributed.fsdp.fully_shard`, after ZeRO-3 (arXiv 1910.02054).
"""

import warnings
from collections.abc import Iterable
from typing import Any, Literal

import torch
from torch import Tensor, nn

from fourfold.training.process_group import ProcessGroup

Parallel = Literal["auto", "ddp", "fsdp"]
BYTES_PER_PARAMETER = 16  # float32 weight, gradient and two moments
MAX_GPU_SHARE = 0.4  # of the memory of a GPU, for these bytes; activations need the rest


class ParallelModel:
    """A model on all processes of a group, called like the model itself; with one process it is the model itself.

    Args:
        model: the model; FSDP replaces its parameters by shards.
        processes: the processes that train together.
        kind: "ddp", "fsdp", or "auto", which shards models whose weights, gradients and moments need too much of a GPU.
        blocks: modules to shard one by one, each with the names of its methods, beside `forward`, that are called from
            outside. some_unused: whether a batch may leave parameters without a gradient; DDP then has to search for
            them.
    """

    def __init__(
        self,
        model: nn.Module,
        processes: ProcessGroup,
        kind: Parallel = "auto",
        blocks: Iterable[tuple[nn.Module, tuple[str, ...]]] = (),
        some_unused: bool = False,
    ) -> None:
        self.model, self.processes = model, processes
        self.is_sharded = processes.size > 1 and (kind == "fsdp" or (kind == "auto" and _is_large(model)))
        self._call: Any = model
        if self.is_sharded:
            shard(model, blocks)
        elif processes.size > 1:
            # buffers are constant tables; torch 2.15 renames the option to a name that 2.9 does not have
            warnings.filterwarnings("ignore", message="`broadcast_buffers` is deprecated", category=FutureWarning)
            self._call = nn.parallel.DistributedDataParallel(
                model, find_unused_parameters=some_unused, broadcast_buffers=False, gradient_as_bucket_view=True
            )

    def __call__(self, *inputs: Any, is_last: bool = True) -> Any:
        """Return the output of the model.

        Args:
            inputs: arguments of the model.
            is_last: whether this is the last call before the update; only then are gradients exchanged between
                processes.
        """
        if self.is_sharded:
            self._call.set_requires_gradient_sync(is_last)
        elif self.processes.size > 1:
            self._call.require_backward_grad_sync = is_last
        return self._call(*inputs)


def is_sharded(tensor: Tensor) -> bool:
    """Return whether a tensor is a DTensor, without importing that class, which takes seconds."""
    return hasattr(tensor, "full_tensor")


def local(tensor: Any) -> Tensor:
    """Return the shard of this process as a view; the tensor itself if it is not sharded."""
    return tensor.to_local() if is_sharded(tensor) else tensor


def whole(tensor: Any) -> Tensor:
    """Return the whole tensor. Every process must call it if the tensor is sharded."""
    return tensor.full_tensor() if is_sharded(tensor) else tensor


def whole_like(shard: Tensor, like: Any) -> Tensor:
    """Return the whole tensor of which every process passes a shard, cut like the sharded tensor `like`."""
    from torch.distributed.tensor import DTensor

    return whole(DTensor.from_local(shard, like.device_mesh, like.placements, shape=like.shape, stride=like.stride()))


def shard_like(tensor: Tensor, like: Any) -> Tensor:
    """Return the shard of this process of a whole tensor that every process passes, cut like `like`."""
    if not is_sharded(like):
        return tensor
    from torch.distributed.tensor import distribute_tensor

    return distribute_tensor(tensor, like.device_mesh, like.placements, src_data_rank=None).to_local()


def whole_tensors(tensors: dict[str, Tensor], processes: ProcessGroup) -> dict[str, Tensor]:
    """Return whole tensors on the CPU of the first process, {} on the others.

    Tensors are gathered one at a time to save memory. Every process must call it.
    """
    gathered = {}
    for name, tensor in tensors.items():
        complete = whole(tensor.detach())
        if processes.is_first:
            gathered[name] = complete.cpu()
    return gathered


def shard(model: nn.Module, blocks: Iterable[tuple[nn.Module, tuple[str, ...]]]) -> None:
    """Shard a model over all processes, in place (FSDP2): `blocks` one by one, as in `ParallelModel`, and then the rest."""
    from torch.distributed.fsdp import fully_shard, register_fsdp_forward_method

    # the warning concerns in-place changes of what a block returned; there are none here
    warnings.filterwarnings("ignore", message=".*returned a view tensor", category=UserWarning)
    for block, methods in blocks:
        fully_shard(block)
        for method in methods:
            register_fsdp_forward_method(block, method)
    # shard the root again after forward as well: weights that validation gathered must not outlive an update
    fully_shard(model, reshard_after_forward=True)


def _is_large(model: nn.Module) -> bool:
    if not torch.cuda.is_available():
        return False
    needed = BYTES_PER_PARAMETER * sum(parameter.numel() for parameter in model.parameters())
    return needed > MAX_GPU_SHARE * torch.cuda.get_device_properties(torch.cuda.current_device()).total_memory
