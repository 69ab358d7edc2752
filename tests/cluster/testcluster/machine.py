"""Mount, network and process namespaces in which a cluster runs.

The network is connected to the host by one pair of virtual interfaces, without a route beyond it. Things that are in no
namespace are removed explicitly: control groups, created mount points, and the state folder.
"""

import contextlib
import ctypes
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

import psutil

from testcluster.errors import ClusterError, tail

# 198.18.0.0/15 is reserved for tests (RFC 2544), so it cannot conflict with a real network.
NETWORK = "198.18.0.0/15"
PODS, GATEWAY = "198.18.0.0/24", "198.18.0.1"
SERVICES, API_SERVICE = "198.18.1.0/24", "198.18.1.1"
HOST_ADDRESS, NODE_ADDRESS = "198.18.2.2", "198.18.2.1"
HOST_LINK, NODE_LINK, BRIDGE = "fourfold-host", "fourfold-node", "fourfold-pods"
# Folders that kubelet and the network plugins write to regardless of their configuration.
HIDDEN = ("/var/lib/cni", "/var/lib/kubelet", "/var/log/containers", "/var/log/pods")
CGROUPS = Path("/sys/fs/cgroup")
START_SECONDS = 120
STOP_SECONDS = 60
PR_SET_PDEATHSIG = 1


@dataclass
class Program:
    """A program of the cluster: its command line, and its process id on the host while it runs."""

    name: str
    arguments: list[str]
    log: str
    pid: int = 0

    def is_running(self) -> bool:
        """Return whether its process is alive."""
        with contextlib.suppress(psutil.NoSuchProcess):
            return self.pid > 0 and psutil.Process(self.pid).status() != psutil.STATUS_ZOMBIE
        return False


class Machine:
    """The namespaces and the programs in them; `folder` contains logs and state."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.init = 0
        self.programs: dict[str, Program] = {}
        self._created: list[str] = []
        self._helpers: list[subprocess.Popen[bytes]] = []  # processes on the host: unshare and nsenter

    # --- start ---
    def start(self, outlives_parent: bool = False) -> None:
        """Create the namespaces and their network.

        Unless `outlives_parent`, they end with this process, even if it is killed.
        """
        self.check_alone()
        (self.folder / "logs").mkdir(parents=True, exist_ok=True)
        for path in HIDDEN:
            self._create(Path(path))
        self._save()
        log = self.folder / "logs/init.log"
        command = ["unshare", "--mount", "--net", "--pid", "--mount-proc", "--fork", "--kill-child", "--", sys.executable, "-I"]
        command += [str(Path(__file__).with_name("init.py")), str(self.folder), *HIDDEN]
        with log.open("w") as file:
            holder = subprocess.Popen(
                command,
                stdout=file,
                stderr=file,
                start_new_session=True,
                preexec_fn=None if outlives_parent else _die_with_parent,
            )
        self._helpers.append(holder)
        self._wait(lambda: (self.folder / "ready").exists(), holder, log, "The namespaces")
        self.init = psutil.Process(holder.pid).children()[0].pid
        self._save()
        self._connect()

    @staticmethod
    def check_alone() -> None:
        """Raise ClusterError if another kubelet has pods on this machine: control groups are in no namespace."""
        if used := next((group for top in _tops() for group in top.rglob("pod*")), None):
            remedy = "Use its cluster: make test-cluster KUBECONFIG=…"
            raise ClusterError(f"{used} exists: another kubelet runs on this machine. {remedy}.")

    def _connect(self) -> None:
        """Connect the network namespace with the host, and create the bridge for pods."""
        # The interface of an earlier cluster may still exist for a moment.
        subprocess.run(["ip", "link", "delete", HOST_LINK], capture_output=True)
        run(["ip", "link", "add", HOST_LINK, "type", "veth", "peer", "name", NODE_LINK, "netns", str(self.init)])
        run(["ip", "address", "add", f"{HOST_ADDRESS}/24", "dev", HOST_LINK])
        run(["ip", "link", "set", HOST_LINK, "up"])
        for command in (
            ["ip", "link", "set", "lo", "up"],
            ["ip", "address", "add", f"{NODE_ADDRESS}/24", "dev", NODE_LINK],
            ["ip", "link", "set", NODE_LINK, "up"],
            ["ip", "link", "add", BRIDGE, "type", "bridge"],
            ["ip", "address", "add", f"{GATEWAY}/24", "dev", BRIDGE],
            ["ip", "link", "set", BRIDGE, "up"],
            ["ip", "route", "add", "default", "via", HOST_ADDRESS],
            ["sysctl", "-qw", "net.ipv4.ip_forward=1"],
        ):
            self.run(command)
        run(["ip", "route", "replace", NETWORK, "via", NODE_ADDRESS])

    # --- programs ---
    def inside(self, command: list[str]) -> list[str]:
        """Return the command that runs `command` in the namespaces."""
        return ["nsenter", f"--target={self.init}", "--mount", "--net", "--pid", "--", *command]

    def run(self, command: list[str]) -> str:
        """Run a command in the namespaces and return its output. Raises ClusterError if it fails."""
        return run(self.inside(command), command[0])

    def launch(self, name: str, arguments: list[str]) -> Program:
        """Start a program in the background."""
        program = Program(name, arguments, str(self.folder / f"logs/{name}.log"))
        self.programs[name] = program
        self._launch(program)
        return program

    def _launch(self, program: Program) -> None:
        with Path(program.log).open("a") as log:
            parent = subprocess.Popen(self.inside(program.arguments), stdout=log, stderr=log, start_new_session=True)
        self._helpers.append(parent)
        self._wait(lambda: bool(_children(parent.pid)), parent, Path(program.log), program.name)
        program.pid = _children(parent.pid)[0].pid
        self._save()

    def stop_program(self, name: str, how: signal.Signals = signal.SIGTERM) -> None:
        """Stop a program: send the signal `how`, then SIGKILL if it does not end."""
        program = self.programs[name]
        with contextlib.suppress(psutil.Error, ProcessLookupError):
            process = psutil.Process(program.pid)
            os.kill(program.pid, how)
            try:
                process.wait(STOP_SECONDS)
            except psutil.TimeoutExpired:
                os.kill(program.pid, signal.SIGKILL)
        program.pid = 0

    def start_again(self, name: str) -> None:
        """Start a stopped program again with the same command line."""
        self._launch(self.programs[name])

    def wait_until(self, is_ready: Callable[[], bool], name: str, seconds: float) -> None:
        """Wait until a program is ready. Raises ClusterError with the end of its log if it dies or takes too long."""
        program, end = self.programs[name], time.monotonic() + seconds
        while not is_ready():
            if not program.is_running():
                raise ClusterError(f"{name} ended while it started; the end of {program.log}:\n{tail(Path(program.log))}")
            if time.monotonic() > end:
                raise ClusterError(
                    f"{name} is not ready after {seconds:.0f} s; the end of {program.log}:\n{tail(Path(program.log))}"
                )
            time.sleep(0.1)

    # --- stop ---
    def stop(self) -> None:
        """Kill all programs and remove what they left on the host. A second call does nothing."""
        if self.init:
            with contextlib.suppress(psutil.Error, ProcessLookupError):
                process = psutil.Process(self.init)
                os.kill(self.init, signal.SIGKILL)
                process.wait(STOP_SECONDS)
        for parent in self._helpers:  # each would end with its child after a moment
            parent.kill()
            parent.wait()
        subprocess.run(["ip", "link", "delete", HOST_LINK], capture_output=True)  # also removes its routes
        _remove_cgroups()
        for path in reversed(self._created):
            with contextlib.suppress(OSError):
                Path(path).rmdir()
        self._created, self._helpers, self.init = [], [], 0
        (self.folder / "machine.json").unlink(missing_ok=True)

    def _create(self, path: Path) -> None:
        for folder in [*reversed(path.parents), path]:
            if not folder.exists():
                folder.mkdir()
                self._created.append(str(folder))

    def _save(self) -> None:
        state = {"init": self.init, "created": self._created, "programs": [asdict(p) for p in self.programs.values()]}
        (self.folder / "machine.json").write_text(json.dumps(state, indent=1))

    @classmethod
    def load(cls, folder: Path) -> "Machine":
        """Return the machine that another process has started in `folder`."""
        machine = cls(folder)
        machine.refresh()
        return machine

    def refresh(self) -> None:
        """Read the state again: another process may have restarted a program."""
        state = json.loads((self.folder / "machine.json").read_text())
        self.init, self._created = state["init"], state["created"]
        self.programs = {p["name"]: Program(**p) for p in state["programs"]}

    @staticmethod
    def _wait(is_ready: Callable[[], bool], process: subprocess.Popen[bytes], log: Path, what: str) -> None:
        end = time.monotonic() + START_SECONDS
        while not is_ready():
            if process.poll() is not None or time.monotonic() > end:
                raise ClusterError(f"{what} did not start ({process.poll()}); the end of {log}:\n{tail(log)}")
            time.sleep(0.02)


def run(command: list[str], name: str = "") -> str:
    """Run a command and return its output. Raises ClusterError with its error output if it fails."""
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        output = (done.stderr or done.stdout).strip()[-1500:]
        raise ClusterError(f"`{name or command[0]}` failed ({done.returncode}): {output} [{' '.join(command)[:300]}]")
    return done.stdout


def _children(pid: int) -> list[psutil.Process]:
    with contextlib.suppress(psutil.NoSuchProcess):
        return psutil.Process(pid).children()
    return []


def _die_with_parent() -> None:
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)


def _remove_cgroups() -> None:
    """Remove the empty control groups of pods, innermost first; the kernel may need several attempts."""
    end = time.monotonic() + STOP_SECONDS
    while (tops := _tops()) and time.monotonic() < end:
        for folder in [folder for top in tops for folder in [*sorted(top.rglob("*/"), reverse=True), top]]:
            with contextlib.suppress(OSError):
                folder.rmdir()
        time.sleep(0.1)


def _tops() -> list[Path]:
    """Return the top control groups of pods: one per hierarchy (version 1), or one (version 2)."""
    return [*CGROUPS.glob("kubepods"), *CGROUPS.glob("*/kubepods")]


def remove_tree(folder: Path) -> None:
    """Remove a folder with its content."""
    shutil.rmtree(folder, ignore_errors=True)
