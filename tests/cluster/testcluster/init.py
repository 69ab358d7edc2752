"""Process 1 of the cluster's namespaces: makes the mounts, says that it is ready, then reaps what its programs leave behind.

Run by `machine.py` as a script, in new mount, network and process namespaces. When it dies, the kernel ends every process in
there, and with the last of them the namespaces go: mounts, interfaces, firewall rules and network settings vanish without
anybody undoing them.
"""

import os
import subprocess
import sys
import time
from pathlib import Path

# What kubelet wants of the kernel. It reads these files and writes those that differ: here it finds what it wants, and the
# machine's own settings, which are not part of any namespace, stay as they are.
WANTED = {
    "vm/overcommit_memory": "1",
    "vm/panic_on_oom": "0",
    "kernel/panic": "10",
    "kernel/panic_on_oops": "1",
    "kernel/keys/root_maxkeys": "1000000",
    "kernel/keys/root_maxbytes": "25000000",
}


def main(folder: Path, hidden: list[str]) -> None:
    """Mount a folder of the cluster's own over each of `hidden`, then wait for children for ever."""
    mount("-t", "tmpfs", "tmpfs", "/run")
    Path("/run/lock").mkdir()
    for number, place in enumerate(hidden):
        own = folder / f"own-{number}"
        own.mkdir()
        mount("--bind", str(own), place)
    for name, value in WANTED.items():
        fake = folder / f"wanted-{name.replace('/', '-')}"
        fake.write_text(value)
        mount("--bind", str(fake), f"/proc/sys/{name}")
    (folder / "ready").touch()
    while True:
        try:
            os.wait()
        except ChildProcessError:  # none now; adopted ones may come
            time.sleep(0.2)


def mount(*arguments: str) -> None:
    """Run `mount`; the error is what the program says."""
    subprocess.run(["mount", *arguments], check=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2:])
