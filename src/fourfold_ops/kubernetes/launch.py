"""Starts torchrun in a pod, and starts it anew whenever a pod that trains with it has fallen. Its exit code is torchrun's.

`python -m fourfold_ops.kubernetes.launch --nodes=2 --processes=8 --index=0 --first=NAME-0.NAME --port=29500 --grace=60 COMMAND`

`gang` says how pods that train together hold together. The Job sees exit codes and decides by them whether to try again.
"""

import math
import signal
import subprocess
import sys
import time
from typing import Any

from fourfold_ops.errors import EXIT_TERMINATED
from fourfold_ops.kubernetes import torchrun
from fourfold_ops.kubernetes.gang import Member, Roll, call_in
from fourfold_ops.kubernetes.torchrun import Place

TORCHRUN = (sys.executable, "-m", torchrun.__name__)
TICK_SECONDS = 0.1
CALL_SECONDS = 1.0  # between attempts to reach pod 0
LAST_WORD_SECONDS = 5.0  # that one which is told to go, but is done, waits for the others to be done too
END_SECONDS = 60.0  # for a killed process to be gone; one that a broken device holds never is


def main(arguments: list[str]) -> int:
    """Run the command as `arguments` say and return the exit code of the process that failed first, 0 if none did."""
    place = Place.of(arguments)
    return torchrun.run(place, "alone") if place.nodes == 1 else Launcher(place).run()


class Launcher:
    """The launcher of one pod of several. One thread; nothing in it waits for longer than a tick."""

    def __init__(self, place: Place) -> None:
        self.place = place
        self._roll = Roll(place.first, place.nodes, place.port + 1) if place.index == 0 else None
        self._stopped_at = math.inf  # when SIGTERM came
        signal.signal(signal.SIGTERM, self._stop)

    def run(self) -> int:
        """Take part in generation after generation until one ends for good."""
        try:
            while (code := self._generation()) is None:
                pass
            return code
        finally:
            if self._roll is not None:
                self._roll.linger()
                self._roll.close()

    def _stop(self, number: int, frame: Any) -> None:
        self._stopped_at = min(self._stopped_at, time.monotonic())

    @property
    def _is_stopped(self) -> bool:
        return self._stopped_at < math.inf

    def _tick(self, member: Member | None = None) -> None:
        time.sleep(TICK_SECONDS)
        if self._roll is not None:
            self._roll.poll()
        if member is not None:
            member.poll()

    def _generation(self) -> int | None:
        """Take part in one generation; return the exit code for this pod, None if another generation follows."""
        member = self._join()
        if member is None:
            return EXIT_TERMINATED
        say(f"all {self.place.nodes} pods are there; generation {member.generation} begins.")
        program = [*TORCHRUN, member.generation, *self.place.arguments()]
        processes = subprocess.Popen(program)  # noqa: S603, the manifest's own words
        try:
            code = self._attend(processes, member)
        finally:
            end_all(processes)  # before this pod calls in again: nobody may meet processes of a generation that is over
            member.close()
        if code is None:
            say(f"{member.why}; all begin anew.")
        return code

    def _join(self) -> Member | None:
        """Call in until all are there; None after a SIGTERM."""
        host = self.place.first if self._roll is None else "localhost"
        told: list[int] = []
        while not self._is_stopped:
            member = call_in(self.place.first, self.place.index, host, self.place.port + 1)
            while member is not None and not member.is_over and not self._is_stopped:
                self._tick(member)
                if member.generation:
                    return member
                if member.missing != told:
                    told = member.missing
                    say(f"{self.place.nodes} pods train together; waits for {', '.join(map(str, told))}.")
            if member is not None:
                member.close()
            again = time.monotonic() + CALL_SECONDS
            while time.monotonic() < again and not self._is_stopped:
                self._tick()
        return None

    def _attend(self, processes: subprocess.Popen[bytes], member: Member) -> int | None:
        """Wait for the end of this pod's processes, then for that of all; None where all begin anew."""
        told_to_go = False
        while (code := processes.poll()) is None:
            if self._is_stopped and not told_to_go:
                told_to_go = True
                member.leaving()
                processes.terminate()  # they save, and have until SIGKILL for it
            if member.is_over and not told_to_go:
                return None
            self._tick(member)
        code = code if code >= 0 else 128 - code
        if told_to_go and code:
            return code
        member.ended(code)
        while not member.is_over and time.monotonic() < self._stopped_at + LAST_WORD_SECONDS:
            self._tick(member)
        if not member.is_over:
            return EXIT_TERMINATED
        return {"over": 0, "leave": code}.get(member.verdict)


def end_all(process: subprocess.Popen[bytes]) -> None:
    """Kill all that this process has started, and return when none is left: what it computed is on disk or lost.

    In a pod that is everything: this process is the container's first, and inherits those whose parents are gone.
    """
    import psutil

    deadline = time.monotonic() + END_SECONDS
    while alive := [one for one in psutil.Process().children(recursive=True) if _is_alive(one)]:
        if time.monotonic() > deadline:
            raise RuntimeError(f"Process {alive[0].pid} does not end after SIGKILL: is its device broken?")
        for one in alive:
            one.kill()
        psutil.wait_procs(alive, timeout=1)
    process.wait()


def _is_alive(process: Any) -> bool:
    import psutil

    try:
        return bool(process.status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False


def say(line: str) -> None:
    """Write a line to the pod's log."""
    print(f"gang: {line}", file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
