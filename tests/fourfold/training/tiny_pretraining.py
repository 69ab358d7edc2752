"""Pretraining on the tiny world, unbroken and killed, each in a process of its own: `python tiny_pretraining.py <folder>`."""

import os
import signal
import sys
from pathlib import Path

import torch
from tiny_world import TinyTokenizers, tiny_config, write_world

from fourfold.training import pretrain as module

KILLED_BEFORE_STEPS = (0, 6, 11, 17)


def main(folder: Path, world: tuple, kill_at: int) -> None:
    torch.set_num_threads(1)
    original = module.factor

    def factor_or_kill(config, step, num_steps):
        if step == kill_at:
            os.kill(os.getpid(), signal.SIGKILL)
        return original(config, step, num_steps)

    module.factor = factor_or_kill
    module.pretrain(*world, TinyTokenizers(), tiny_config(), 7, folder)


if __name__ == "__main__":
    root = Path(sys.argv[1])
    world = write_world(root / "world")
    for name, kill_at in (("unbroken", -1), *(("broken", step) for step in KILLED_BEFORE_STEPS), ("broken", -1)):
        child = os.fork()  # a process each, but one import of torch for all
        if not child:
            main(root / name, world, kill_at)
            os._exit(0)
        _, status = os.waitpid(child, 0)
        assert status == (0 if kill_at < 0 else signal.SIGKILL), status
