"""Ingestion that is killed or measured, in separate processes: `python hardship.py kill | memory ...` (see test_ingest.py)."""

import os
import random
import resource
import signal
import sys
from functools import partial
from pathlib import Path

import torch

from fourfold.data.ingestion.ingest import IngestionConfig, ingest
from fourfold.plugins import load_plugins
from fourfold.source_code import module_digests


def in_child(prepare, config: str, folder: str) -> int:
    """Ingest in a forked process after `prepare()`; returns its wait status."""
    child = os.fork()
    if child:
        return os.waitpid(child, 0)[1]
    try:
        prepare()
        ingest(IngestionConfig.model_validate_json(config), 0, Path(folder))
        print("finished", flush=True)
    except ValueError as error:
        print(f"ValueError: {error}", flush=True)
    os._exit(0)


def die_at_sync(number: int) -> None:
    """Kill this process just before the `number`-th file would be whole, or between that file and the next."""
    left = iter(range(number))
    sync, replace = os.fsync, Path.replace

    def fsync(descriptor):
        if number % 2 and next(left, None) is None:
            os.kill(os.getpid(), signal.SIGKILL)
        sync(descriptor)

    def rename(path, target):
        result = replace(path, target)
        if not number % 2 and next(left, None) is None:
            os.kill(os.getpid(), signal.SIGKILL)
        return result

    os.fsync, Path.replace = fsync, rename


def die_after(seconds: float) -> None:
    """Kill this process after some time, wherever it is: an alarm that nobody handles ends it at once."""
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    signal.setitimer(signal.ITIMER_REAL, seconds)


def kill(config: str, folder: str, unbroken: str) -> None:
    """Ingest into `unbroken` in one go, and into `folder` with many deaths on the way."""
    # once, for all children: if a source file is edited meanwhile, they would discard each other's work
    module_digests([ingest.__module__, "fourfold.scenes.world.writing"])
    in_child(lambda: None, config, unbroken)
    rng = random.Random(0)
    attempts = [partial(die_after, rng.uniform(0.005, 0.05)) for _ in range(3)]  # early: not done before the deaths that follow
    attempts += [partial(die_at_sync, number) for number in range(1, 11)]
    for attempt in attempts:
        if os.WIFSIGNALED(in_child(attempt, config, folder)):
            print("killed", flush=True)
    in_child(lambda: None, config, folder)


def memory(first: str, second: str, folder: str) -> None:
    for number, config in enumerate((first, second)):
        ingest(IngestionConfig.model_validate_json(config), 0, Path(folder) / f"out{number}")
        print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, flush=True)


if __name__ == "__main__":
    torch.set_num_threads(1)  # all work in this process, which is the one that is killed and measured
    load_plugins(["fourfold.scenes"])
    {"kill": kill, "memory": memory}[sys.argv[1]](*sys.argv[2:])
