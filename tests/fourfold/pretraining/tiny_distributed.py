"""Pretraining on the tiny world by several processes: `python tiny_distributed.py <folder> <case>`."""

import os
import signal
import sys
from pathlib import Path

import processes
import torch
import torch._dynamo  # this and what follows: once for all processes, each import takes seconds
import torch.distributed.checkpoint.hf_storage
import torch.distributed.fsdp
import torch.distributed.tensor
from tiny_world import TinyTokenizers, tiny_config, write_world

from fourfold.pretraining import pretrain as module
from fourfold.pretraining.config import PlaceConfig
from fourfold.training.preemption import EXIT_PREEMPTED

STEPS, BATCH = 14, 8


def run(folder: Path, world: tuple, place: PlaceConfig, stop: tuple[int, int] | None, changes: dict) -> None:
    """Train; `stop` is (step, signal): before that step this process gets that signal."""
    torch.set_num_threads(1)
    config = tiny_config(
        batch_size=BATCH,
        total_tokens=STEPS * BATCH * 18,
        log_every=1,
        validate_every=4,
        checkpoint_every=5,
        place=place,
        **changes,
    )
    original = module.lr_multiplier

    def lr_multiplier(schedule, step, num_steps):
        if stop and step == stop[0]:
            os.kill(os.getpid(), stop[1])
        return original(schedule, step, num_steps)

    module.lr_multiplier = lr_multiplier
    module.pretrain(*world, TinyTokenizers(), config, 7, folder)


def launch(
    size: int, folder: Path, world: tuple, stop: tuple[int, int] | None = None, changes: dict | None = None, **place
) -> list[int]:
    """Run in `size` processes; return how each ended: its exit code, or minus its signal."""

    def work(rank: int) -> None:
        is_target = rank == size - 1  # the others learn of it from this one
        run(folder, world, PlaceConfig(**place), stop if is_target else None, changes or {})

    return processes.launch(size, folder, work)


def main(root: Path, case: str) -> None:
    world = write_world(root / "world")
    recomputed = {"model": tiny_config().model.model_copy(update={"recompute_blocks": True})}
    if case == "two":
        assert launch(1, root / "alone", world) == [0]
        assert launch(1, root / "accumulated", world, micro_batch_size=3) == [0]
        assert launch(2, root / "ddp", world, num_workers=1) == [0, 0]
        assert launch(2, root / "ddp_accumulated", world, micro_batch_size=3) == [0, 0]
        assert launch(2, root / "ddp_recomputed", world, None, recomputed, micro_batch_size=3) == [0, 0]
        assert launch(2, root / "fsdp", world, parallel="fsdp", micro_batch_size=3) == [0, 0]
        # killed, then pre-empted, each time continued by others
        assert launch(2, root / "moved", world, (11, signal.SIGKILL), parallel="fsdp")[1] == -signal.SIGKILL
        kept = {path.name for path in (root / "moved").glob("step-*")}
        assert kept and kept <= {"step-00000005", "step-00000010"}  # the newer one may still be on its way
        assert launch(2, root / "moved", world, (12, signal.SIGTERM)) == [EXIT_PREEMPTED] * 2
        assert [path.name for path in (root / "moved").glob("step-*")] == ["step-00000013.safetensors"]
        assert launch(1, root / "moved", world) == [0]
    if case == "four":
        assert launch(1, root / "alone", world) == [0]
        assert launch(4, root / "fsdp", world, (6, signal.SIGTERM), recomputed, parallel="fsdp") == [EXIT_PREEMPTED] * 4
        assert [path.name for path in (root / "fsdp").glob("step-*")] == ["step-00000007"]
        assert launch(2, root / "fsdp", world, None, recomputed, parallel="fsdp") == [0, 0]


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2])
