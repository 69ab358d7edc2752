"""Process 1 of the cluster's namespaces: creates the mounts, then reaps orphaned processes.

Run by `machine.py` as a script in new mount, network and process namespaces. When it ends, the kernel kills all
processes in them and removes the namespaces, including mounts, interfaces, firewall rules and network settings.
"""

import os
import subprocess
import sys
import time
from pathlib import Path

# Kernel settings that kubelet requires. It reads these files and writes those that differ. Bind mounts show it the required
# values, so that the settings of the machine, which are in no namespace, do not change.
REQUIRED = {
    "vm/overcommit_memory": "1",
    "vm/panic_on_oom": "0",
    "kernel/panic": "10",
    "kernel/panic_on_oops": "1",
    "kernel/keys/root_maxkeys": "1000000",
    "kernel/keys/root_maxbytes": "25000000",
}


def main(folder: Path, hidden: list[str]) -> None:
    """Mount a private folder over each of `hidden`, then reap child processes forever."""
    mount("-t", "tmpfs", "tmpfs", "/run")
    Path("/run/lock").mkdir()
    for number, path in enumerate(hidden):
        private = folder / f"private-{number}"
        private.mkdir()
        mount("--bind", str(private), path)
    for name, value in REQUIRED.items():
        fake = folder / f"required-{name.replace('/', '-')}"
        fake.write_text(value)
        mount("--bind", str(fake), f"/proc/sys/{name}")
    (folder / "ready").touch()
    while True:
        try:
            os.wait()
        except ChildProcessError:  # none at the moment; orphans may be adopted later
            time.sleep(0.2)


def mount(*arguments: str) -> None:
    """Run `mount`."""
    subprocess.run(["mount", *arguments], check=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2:])
