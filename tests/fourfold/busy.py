"""A machine with other work: two threads of torch, and a process that keeps one core busy."""

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import torch


@contextmanager
def two_busy_threads() -> Iterator[None]:
    """Compute with two threads beside a process that computes until the block ends, and two minutes at most."""
    code = "import time\nend = time.time() + 120\nwhile time.time() < end: sum(range(10**5))"
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    process = subprocess.Popen([sys.executable, "-c", code])
    try:
        yield
    finally:
        process.kill()
        process.wait()
        torch.set_num_threads(before)
