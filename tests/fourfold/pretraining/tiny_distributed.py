"""Pretraining on the tiny world by one and several processes, in both precisions: `python tiny_distributed.py <folder>`."""

import os
import signal
import sys
from pathlib import Path

import torch
import torch._dynamo  # this and the following: import once for all processes, each import takes seconds
import torch.distributed.checkpoint.hf_storage
import torch.distributed.fsdp
import torch.distributed.tensor
from tiny_world import TinyTokenizers, tiny_config, write_world

from fourfold.pretraining.config import ComputeConfig
from fourfold.pretraining.pretrain import pretrain
from fourfold.source_code import module_digests
from fourfold.training import loop
from fourfold.training.preemption import EXIT_PREEMPTED
from fourfold.training.run_context import RunContext

sys.path.append(str(Path(__file__).parents[1] / "training"))
import processes

STEPS, BATCH = 14, 8
# test case → (number of processes, where to compute); micro-batches of 3 of 8 samples: 3 per process alone, 2 on each
# of two
FP32 = {
    "alone": (1, {}),
    "accumulated": (1, {"micro_batch_size": 3}),
    "ddp": (2, {"num_workers": 1}),
    "ddp_accumulated": (2, {"micro_batch_size": 3}),
    "fsdp": (2, {"parallel": "fsdp", "micro_batch_size": 3}),
}
BF16 = {
    "alone_bf16": (1, {}),
    "accumulated_bf16": (1, {"micro_batch_size": 3}),
    "ddp_accumulated_bf16": (2, {"micro_batch_size": 3}),
    "fsdp_bf16": (2, {"parallel": "fsdp", "micro_batch_size": 3}),
}
RECOMPUTED = {"model": tiny_config().model.model_copy(update={"recompute_blocks": True})}


def run(folder: Path, world: tuple, compute: dict, stop: tuple[int, int] | None, changes: dict) -> None:
    """Train; `stop` is (step, signal): before that step this process gets that signal."""
    torch.set_num_threads(1)
    original = loop.lr_multiplier

    def lr_multiplier(schedule, step, num_steps):
        if stop and step == stop[0]:
            os.kill(os.getpid(), stop[1])
        return original(schedule, step, num_steps)

    loop.lr_multiplier = lr_multiplier
    budget = {"batch_size": BATCH, "total_tokens": STEPS * BATCH * 18}
    intervals = {"log_every": 1, "validate_every": 4, "checkpoint_every": 5}
    config = tiny_config(**budget, **intervals, compute=ComputeConfig(**compute), **changes)
    pretrain(*world, TinyTokenizers(), config, RunContext(7, folder))


def launch(
    size: int, folder: Path, world: tuple, compute: dict, stop: tuple[int, int] | None = None, **changes: object
) -> list[int]:
    """Run in `size` processes, the last of which gets the signal; return how each ended: exit code, or minus its signal."""
    return processes.launch(size, folder, lambda rank: run(folder, world, compute, stop if rank == size - 1 else None, changes))


def main(root: Path) -> None:
    world = write_world(root / "world")
    module_digests([pretrain.__module__])  # once for all processes, each would take half a second
    for cases, precision in ((FP32, "fp32"), (BF16, "bf16")):
        for name, (size, compute) in cases.items():
            assert launch(size, root / name, world, compute, precision=precision) == [0] * size
    assert launch(2, root / "ddp_recomputed", world, {"micro_batch_size": 3}, **RECOMPUTED) == [0, 0]
    # killed, then preempted, each time resumed by other processes
    moved, fsdp = root / "moved", {"parallel": "fsdp"}
    assert launch(2, moved, world, fsdp, (11, signal.SIGKILL))[1] == -signal.SIGKILL
    kept = {path.name for path in moved.glob("step-*")}
    assert kept and kept <= {"step-00000005", "step-00000010"}  # the newer one may not have been complete
    assert launch(2, moved, world, {}, (12, signal.SIGTERM)) == [EXIT_PREEMPTED] * 2
    assert [path.name for path in moved.glob("step-*")] == ["step-00000013.safetensors"]
    assert launch(1, moved, world, {}) == [0]
    # preempted with four processes, resumed by two
    four = root / "four_then_two"
    assert launch(4, four, world, fsdp, (6, signal.SIGTERM), **RECOMPUTED) == [EXIT_PREEMPTED] * 4
    assert [path.name for path in four.glob("step-*")] == ["step-00000007"]
    assert launch(2, four, world, fsdp, **RECOMPUTED) == [0, 0]


if __name__ == "__main__":
    main(Path(sys.argv[1]))
