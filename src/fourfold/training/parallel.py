"""How a model lies on several processes: whole on each (DDP), or in shards (FSDP2). What is learned is the same.

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
LARGEST_SHARE = 0.4  # of a GPU, for these; activations need the rest


class ParallelModel:
    """`model` on all processes of `world`; call it as the model itself. Alone it is the model itself.

    `kind` counts only when there are several processes: `auto` shards what would not fit beside its activations.
    `blocks` are sharded one by one, each with the names of the methods that are called from outside beside `forward`.
    `some_unused`: a batch may leave parameters without a gradient, which DDP then has to look for.
    """

    def __init__(
        self,
        model: nn.Module,
        world: ProcessGroup,
        kind: Parallel = "auto",
        blocks: Iterable[tuple[nn.Module, tuple[str, ...]]] = (),
        some_unused: bool = False,
    ) -> None:
        self.model, self.world = model, world
        self.is_sharded = world.size > 1 and (kind == "fsdp" or (kind == "auto" and _is_large(model)))
        self._call: Any = model
        if self.is_sharded:
            _shard(model, blocks)
        elif world.size > 1:
            # buffers are constant tables; torch 2.15 has another name for this, which 2.9 does not know
            warnings.filterwarnings("ignore", message="`broadcast_buffers` is deprecated", category=FutureWarning)
            self._call = nn.parallel.DistributedDataParallel(
                model, find_unused_parameters=some_unused, broadcast_buffers=False, gradient_as_bucket_view=True
            )

    def __call__(self, *inputs: Any, is_last: bool = True) -> Any:
        """Return what the model returns; gradients are shared between processes after the last of several calls alone."""
        if self.is_sharded:
            self._call.set_requires_gradient_sync(is_last)
        elif self.world.size > 1:
            self._call.require_backward_grad_sync = is_last
        return self._call(*inputs)


def is_sharded(tensor: Tensor) -> bool:
    """Tell whether a tensor is a DTensor, without importing those: that takes seconds, and most runs have none."""
    return hasattr(tensor, "full_tensor")


def local(tensor: Any) -> Tensor:
    """Return this process's part of a tensor (a view); the tensor itself if it is whole."""
    return tensor.to_local() if is_sharded(tensor) else tensor


def whole(tensor: Any) -> Tensor:
    """Return all of a tensor. Every process must ask for it if it is sharded."""
    return tensor.full_tensor() if is_sharded(tensor) else tensor


def whole_like(part: Tensor, like: Any) -> Tensor:
    """Return the whole tensor of which every process has a part, cut as the sharded tensor `like` is."""
    from torch.distributed.tensor import DTensor

    return whole(DTensor.from_local(part, like.device_mesh, like.placements, shape=like.shape, stride=like.stride()))


def shard_like(tensor: Tensor, like: Any) -> Tensor:
    """Return this process's part of a whole tensor that every process has, cut as `like` is."""
    if not is_sharded(like):
        return tensor
    from torch.distributed.tensor import distribute_tensor

    return distribute_tensor(tensor, like.device_mesh, like.placements, src_data_rank=None).to_local()


def whole_tensors(tensors: dict[str, Tensor], world: ProcessGroup) -> dict[str, Tensor]:
    """Return whole tensors on the CPU of the first process, nothing on others; gathered one at a time, to save memory."""
    found = {}
    for name, tensor in tensors.items():
        complete = whole(tensor.detach())
        if world.is_first:
            found[name] = complete.cpu()
    return found


def _shard(model: nn.Module, blocks: Iterable[tuple[nn.Module, tuple[str, ...]]]) -> None:
    from torch.distributed.fsdp import fully_shard, register_fsdp_forward_method

    # nothing here changes what a block returned in place
    warnings.filterwarnings("ignore", message=".*returned a view tensor", category=UserWarning)
    for block, methods in blocks:
        fully_shard(block)
        for method in methods:
            register_fsdp_forward_method(block, method)
    # the root as well is sharded again after forward: what validation gathered must not outlive a change of the weights
    fully_shard(model, reshard_after_forward=True)


def _is_large(model: nn.Module) -> bool:
    if not torch.cuda.is_available():
        return False
    needed = BYTES_PER_PARAMETER * sum(parameter.numel() for parameter in model.parameters())
    return needed > LARGEST_SHARE * torch.cuda.get_device_properties(torch.cuda.current_device()).total_memory
