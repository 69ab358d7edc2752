"""Pretraining on the tiny world, unbroken, killed and told to stop: `python tiny_pretraining.py <folder>`."""

import os
import signal
import sys
from pathlib import Path

import torch
from tiny_world import TinyTokenizers, tiny_config, write_world

from fourfold.pretraining import pretrain as module
from fourfold.training.preemption import EXIT_PREEMPTED

# (workers, steps before which a run is killed, one after the other); 4 workers are more than there are shards left at the end
RUNS = {"broken": (0, (0, 6, 11, 17)), "one_worker": (1, (9,)), "four_workers": (4, (3, 14))}


def main(folder: Path, world: tuple, num_workers: int, stop_at: int, number: int = signal.SIGKILL) -> None:
    torch.set_num_threads(1)
    original = module.lr_multiplier

    def factor_or_kill(config, step, num_steps):
        if step == stop_at:
            os.kill(os.getpid(), number)
        return original(config, step, num_steps)

    module.lr_multiplier = factor_or_kill
    module.pretrain(*world, TinyTokenizers(), tiny_config(place={"num_workers": num_workers}), 7, folder)


def ending(*arguments) -> int:
    """Run in a process of its own (one import of torch for all); return its exit code, or minus the signal that ended it."""
    child = os.fork()
    if not child:
        try:
            main(*arguments)
        except SystemExit as end:
            os._exit(end.code)
        os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


if __name__ == "__main__":
    root = Path(sys.argv[1])
    world = write_world(root / "world")
    assert ending(root / "unbroken", world, 0, -1) == 0
    for name, (num_workers, steps) in RUNS.items():
        for step in steps:
            assert ending(root / name, world, num_workers, step) == -signal.SIGKILL
        assert ending(root / name, world, num_workers, -1) == 0
    assert ending(root / "preempted", world, 1, 12, signal.SIGTERM) == EXIT_PREEMPTED
    assert [path.name for path in (root / "preempted").glob("step-*")] == ["step-00000013.safetensors"]
    assert ending(root / "preempted", world, 0, -1) == 0
