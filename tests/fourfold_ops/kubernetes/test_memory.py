"""A driver's memory, as far as a setting decides it; benchmarks/driver_memory.py measures."""

import platform
import subprocess
import sys

import pytest

ASK = """
import threading
from fourfold_ops.kubernetes.memory import keep_memory_small
print(keep_memory_small())
held = []
threads = [threading.Thread(target=lambda: held.append(bytearray(10_000_000))) for _ in range(8)]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()
print(len(held))
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="arenas are glibc's")
def test_the_limit_is_taken_and_threads_still_have_memory():
    done = subprocess.run([sys.executable, "-c", ASK], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["True", "8"]
