"""Starts torchrun in a pod, and restarts it when another pod of the training fails.

`python -m fourfold_ops.kubernetes.in_pod.launch OPTIONS COMMAND ...`; `torchrun.LaunchOptions` lists the options.

`restart_group` describes the protocol. The exit code is that of the process that failed first: the Job decides by it
whether to retry.
"""

import math
import signal
import subprocess
import sys
import time
from typing import Any

from fourfold_ops.errors import EXIT_TERMINATED
from fourfold_ops.kubernetes.in_pod import torchrun
from fourfold_ops.kubernetes.in_pod.restart_group import Coordinator, Worker, join
from fourfold_ops.kubernetes.in_pod.torchrun import LaunchOptions

TORCHRUN = (sys.executable, "-m", torchrun.__name__)
TICK_SECONDS = 0.1
JOIN_SECONDS = 1.0  # between two attempts to reach pod 0
DONE_SECONDS = 5.0  # after SIGTERM, a pod whose processes have succeeded waits so long for the others to succeed too
KILL_SECONDS = 60.0  # for a killed process to disappear; one that hangs in a broken device driver never does


def main(arguments: list[str]) -> int:
    """Run the command and return the exit code of the process that failed first, 0 if none failed."""
    options = LaunchOptions.parse(arguments)
    return torchrun.run(options, "single-pod") if options.nodes == 1 else Launcher(options).run()


class Launcher:
    """The launcher of one pod of several. It has one thread, and nothing in it blocks for longer than a tick."""

    def __init__(self, options: LaunchOptions) -> None:
        self.options = options
        is_first = options.index == 0
        self._coordinator = Coordinator(options.first, options.nodes, options.port + 1) if is_first else None
        self._stopped_at = math.inf  # when SIGTERM arrived
        signal.signal(signal.SIGTERM, self._on_sigterm)

    def run(self) -> int:
        """Run attempts until one is final, and return the exit code of this pod."""
        try:
            while (code := self._run_attempt()) is None:
                pass
            return code
        finally:
            if self._coordinator is not None:
                self._coordinator.wait_for_parting()
                self._coordinator.close()

    def _on_sigterm(self, number: int, frame: Any) -> None:
        self._stopped_at = min(self._stopped_at, time.monotonic())

    @property
    def _is_stopped(self) -> bool:
        return self._stopped_at < math.inf

    def _tick(self, worker: Worker | None = None) -> None:
        time.sleep(TICK_SECONDS)
        if self._coordinator is not None:
            self._coordinator.poll()
        if worker is not None:
            worker.poll()

    def _run_attempt(self) -> int | None:
        """Run one attempt; return the exit code of this pod, or None if another attempt follows."""
        worker = self._join()
        if worker is None:
            return EXIT_TERMINATED
        log(f"all {self.options.nodes} pods have joined; starting attempt {worker.attempt}.")
        program = [*TORCHRUN, worker.attempt, *self.options.arguments()]
        processes = subprocess.Popen(program)  # noqa: S603, the arguments come from the manifest
        try:
            code = self._wait_for_end(processes, worker)
        finally:
            # Kill before the connection closes: no later attempt may meet processes of this one.
            kill_all(processes)
            worker.close()
        if code is None:
            log(f"{worker.reason}; all pods restart.")
        return code

    def _join(self) -> Worker | None:
        """Try to join until all pods are there; return None after a SIGTERM."""
        # Pod 0 connects to itself without DNS, which may not resolve its name yet.
        host = self.options.first if self._coordinator is None else "localhost"
        logged: list[int] = []
        while not self._is_stopped:
            worker = join(self.options.first, self.options.index, host, self.options.port + 1)
            while worker is not None and not worker.is_over and not self._is_stopped:
                self._tick(worker)
                if worker.attempt:
                    return worker
                if worker.missing != logged:
                    logged = worker.missing
                    log(f"{self.options.nodes} pods train together; waiting for pod {', '.join(map(str, logged))}.")
            if worker is not None:
                worker.close()
            retry_at = time.monotonic() + JOIN_SECONDS
            while time.monotonic() < retry_at and not self._is_stopped:
                self._tick()
        return None

    def _wait_for_end(self, processes: subprocess.Popen[bytes], worker: Worker) -> int | None:
        """Wait for the processes of this pod, then for those of all pods; return None if all restart."""
        # 1) Wait for the processes of this pod
        terminating = False
        while (code := processes.poll()) is None:
            if self._is_stopped and not terminating:
                terminating = True
                worker.report_termination()
                processes.terminate()  # they may save until kubelet sends SIGKILL
            if worker.is_over and not terminating:
                return None
            self._tick(worker)
        code = code if code >= 0 else 128 - code
        if terminating and code:
            return code

        # 2) Report the exit code and wait for the decision of the coordinator
        worker.report_exit(code)
        while not worker.is_over and time.monotonic() < self._stopped_at + DONE_SECONDS:
            self._tick(worker)
        if not worker.is_over:
            return EXIT_TERMINATED
        return {"done": 0, "exit": code}.get(worker.final_status)


def kill_all(process: subprocess.Popen[bytes]) -> None:
    """Kill all processes that this one has started, and return when none is left.

    In a pod these are all processes: this one is the first of the container, so it inherits orphans.

    Raises:
        RuntimeError: A process does not end after SIGKILL.
    """
    import psutil

    deadline = time.monotonic() + KILL_SECONDS
    while alive := [child for child in psutil.Process().children(recursive=True) if _is_alive(child)]:
        if time.monotonic() > deadline:
            raise RuntimeError(f"Process {alive[0].pid} does not end after SIGKILL: is its device broken?")
        for child in alive:
            child.kill()
        psutil.wait_procs(alive, timeout=1)
    process.wait()


def _is_alive(process: Any) -> bool:
    import psutil

    try:
        return bool(process.status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False


def log(line: str) -> None:
    """Write a line to the log of the pod."""
    print(f"launcher: {line}", file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
