"""Pretraining on the tiny world, uninterrupted, killed and preempted: `python tiny_pretraining.py <folder>`."""

import os
import signal
import sys
import traceback
from pathlib import Path

import torch
from tiny_world import TinyTokenizers, tiny_config, write_world

from fourfold.pretraining.pretrain import pretrain
from fourfold.source_code import module_digests
from fourfold.training import loop
from fourfold.training.preemption import EXIT_PREEMPTED
from fourfold.training.run_context import RunContext

# run → (precision, settings of compute, steps before which it is killed, one after the other); at the end there are fewer
# shards than workers
KILLED = {
    "broken": ("fp32", {}, (0, 6, 11, 17)),
    "one_worker": ("fp32", {"num_workers": 1}, (9,)),
    "four_workers": ("fp32", {"num_workers": 4}, (3, 14)),
    "broken_bf16": ("bf16", {}, (11,)),
    "broken_replicas": ("fp32", {"replicas": 2}, (0, 8)),
}


def main(
    folder: Path, world: tuple, precision: str, compute: dict[str, int], stop_at: int, number: int = signal.SIGKILL
) -> None:
    torch.set_num_threads(1)
    original = loop.lr_multiplier

    def multiplier_or_signal(schedule, step, num_steps):
        if step == stop_at:
            os.kill(os.getpid(), number)
        return original(schedule, step, num_steps)

    loop.lr_multiplier = multiplier_or_signal
    config = tiny_config(precision=precision, compute=compute)
    pretrain(*world, TinyTokenizers(), config, RunContext(7, folder))
    assert "torch._dynamo" not in sys.modules, "importing the compiler costs every run seconds"


def exit_code(*arguments) -> int:
    """Run in a forked process (one import of torch for all); return its exit code, or minus the signal that ended it."""
    child = os.fork()
    if not child:
        code = 1
        try:
            main(*arguments)
            code = 0
        except SystemExit as end:
            code = end.code
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(code)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


if __name__ == "__main__":
    root = Path(sys.argv[1])
    world = write_world(root / "world")
    module_digests([pretrain.__module__])  # once for all processes, each would take half a second
    assert exit_code(root / "unbroken", world, "fp32", {}, -1) == 0
    assert exit_code(root / "unbroken_bf16", world, "bf16", {}, -1) == 0
    assert exit_code(root / "unbroken_replicas", world, "fp32", {"replicas": 2}, -1) == 0
    for name, (precision, compute, steps) in KILLED.items():
        for step in steps:
            assert exit_code(root / name, world, precision, compute, step) == -signal.SIGKILL
        assert exit_code(root / name, world, precision, compute, -1) == 0
    assert exit_code(root / "preempted", world, "fp32", {"num_workers": 1}, 12, signal.SIGTERM) == EXIT_PREEMPTED
    assert [path.name for path in (root / "preempted").glob("step-*")] == ["step-00000013.safetensors"]
    assert exit_code(root / "preempted", world, "fp32", {}, -1) == 0
