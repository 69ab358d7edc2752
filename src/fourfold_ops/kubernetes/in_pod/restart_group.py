"""Restarts all pods of a training together when one of them fails.

The launcher of pod 0 runs a `Coordinator`. The launcher of every pod, pod 0 included, connects to it as a `Worker`.
This needs no permissions, no controller in the cluster and no driver.

- Attempts: an attempt starts when all pods have joined, and only then is torchrun started in each of them. A
  connection serves one attempt: a launcher kills its processes before it joins again. So no process meets the store
  or a peer of an earlier attempt.
- Lost pods: if a connection breaks, or is silent for `LEASE_SECONDS`, its pod is gone. All other launchers kill their
  processes, even those that are blocked in a computation or in NCCL, and join again. Their containers stay; the Job
  replaces the lost pod.
- Failed processes: a worker reports the exit code. Since the peers usually fail as a consequence, the coordinator
  picks the pod whose code names the cause. This pod exits with its code, and the others join again. So one failure
  costs the Job one pod, and the step one retry.
- Success: no pod exits before all have succeeded, because the Job would not start it again if a peer failed later.
  One gap remains: a pod that is lost between the final "done" and its exit gets a successor that waits for a group
  that has ended, until the deadline of the step or until the user cancels.

As with the store of torch, anybody who reaches the port can connect; the network policy in k8s/components only admits
pods of steps.
"""

import contextlib
import socket
import time
import uuid
from typing import Any

from fourfold_ops.errors import BAD_CONFIGURATION, STOPPED
from fourfold_ops.kubernetes.in_pod.channel import HEARTBEAT_SECONDS, Channel

SETTLE_SECONDS = 5.0  # after the first failure: wait for other pods, since the first report is not always the cause
PARTING_SECONDS = 30.0  # for workers to read their final status before the coordinator exits
REMINDER_SECONDS = 30.0  # between two messages about missing pods
# Exit codes in the order in which they name a cause: an invalid configuration, then a process that was killed or crashed
# (SIGKILL, SIGSEGV, SIGBUS), then any other code, then a process that was stopped with SIGTERM.
CAUSES = (BAD_CONFIGURATION, (137, 139, 135))


class Coordinator:
    """Keeps track of the pods of a group and decides when they start, restart and exit. `poll` never blocks.

    Args:
        group: Name of the group; connections that name another one are refused.
        num_pods: Number of pods that start together.
        port: TCP port to listen on.
    """

    def __init__(self, group: str, num_pods: int, port: int) -> None:
        dual = socket.has_dualstack_ipv6()
        family = socket.AF_INET6 if dual else socket.AF_INET
        self._listener = socket.create_server(("", port), family=family, backlog=num_pods + 8, dualstack_ipv6=dual)
        self._listener.setblocking(False)
        self._group, self._num_pods = group, num_pods
        self._unidentified: list[Channel] = []  # connections without a "join" message so far
        self._workers: dict[int, Channel] = {}
        self._parting: list[Channel] = []  # connections whose worker has got its final status
        self._running = False
        self._reminded_at = 0.0
        self._reset_attempt()

    def _reset_attempt(self) -> None:
        self._exit_codes: dict[int, int] = {}  # pod → exit code, in the order of the reports
        self._terminating: set[int] = set()  # pods that got a SIGTERM and are saving a checkpoint
        self._failed_at: float | None = None

    def poll(self) -> None:
        """Read all messages, then start, restart or end the attempt if it is time to."""
        with contextlib.suppress(BlockingIOError):
            while True:
                self._unidentified.append(Channel(self._listener.accept()[0]))
        for channel in list(self._unidentified):
            self._identify(channel)
        for pod, channel in self._workers.items():
            for message in channel.receive():
                self._handle(pod, message)
        self._drop_parted()
        if self._running:
            self._check_attempt()
        else:
            self._start_when_complete()

    def wait_for_parting(self) -> None:
        """Wait until all workers have read their final status: it would be lost if this process exited before."""
        deadline = time.monotonic() + PARTING_SECONDS
        while self._parting and time.monotonic() < deadline:
            self._drop_parted()
            time.sleep(0.05)

    def close(self) -> None:
        """Close all connections."""
        self._listener.close()
        for channel in (*self._unidentified, *self._workers.values(), *self._parting):
            channel.close()

    def _drop_parted(self) -> None:
        """Close the connections whose worker has disconnected after its final status."""
        for channel in list(self._parting):
            channel.receive()
            if channel.is_lost:
                channel.close()
                self._parting.remove(channel)

    def _identify(self, channel: Channel) -> None:
        """Accept a connection as a worker, or close it.

        A pod whose number is still connected is refused: the launcher retries until the old connection has ended.
        """
        for message in channel.receive()[:1]:
            self._unidentified.remove(channel)
            pod = message.get("pod")
            ours = message.get("kind") == "join" and message.get("group") == self._group
            if ours and isinstance(pod, int) and pod in self._missing() and not self._running:
                self._workers[pod] = channel
                self._reminded_at = 0.0
            else:
                channel.close()
            return
        if channel.is_lost:
            channel.close()
            self._unidentified.remove(channel)

    def _missing(self) -> set[int]:
        """Return the pods that are not connected."""
        return set(range(self._num_pods)) - set(self._workers)

    def _start_when_complete(self) -> None:
        for pod, channel in list(self._workers.items()):
            if channel.is_lost:
                channel.close()
                del self._workers[pod]
        if len(self._workers) == self._num_pods:
            self._running = True
            self._broadcast("start", attempt=uuid.uuid4().hex[:12])
        elif time.monotonic() - self._reminded_at > REMINDER_SECONDS:
            self._reminded_at = time.monotonic()
            self._broadcast("wait", missing=sorted(self._missing()))

    def _handle(self, pod: int, message: dict[str, Any]) -> None:
        if message.get("kind") == "exited":
            self._exit_codes[pod] = int(message["code"])
            if self._exit_codes[pod] and self._failed_at is None:
                self._failed_at = time.monotonic()
        elif message.get("kind") == "terminating":
            self._terminating.add(pod)

    def _check_attempt(self) -> None:
        lost = [pod for pod, channel in self._workers.items() if channel.is_lost]
        all_exited = len(self._exit_codes) == self._num_pods
        if lost:
            self._restart(f"pod {lost[0]} is gone")
        elif all_exited and not any(self._exit_codes.values()):
            self._broadcast("done")
            self._part_from_all()
        elif self._failed_at is None or self._terminating:
            # While a pod saves after SIGTERM the others may have to take part in saving: do not disturb them.
            # They restart when the connection of that pod ends.
            return
        elif all_exited or time.monotonic() - self._failed_at > SETTLE_SECONDS:
            cause = root_cause(self._exit_codes)
            reason = f"pod {cause} failed (exit {self._exit_codes[cause]})"
            failed = self._workers.pop(cause)
            failed.send("exit")
            self._parting.append(failed)
            self._restart(reason)

    def _restart(self, reason: str) -> None:
        self._broadcast("restart", reason=reason)
        self._part_from_all()

    def _part_from_all(self) -> None:
        self._parting += self._workers.values()
        self._workers, self._running = {}, False
        self._reset_attempt()

    def _broadcast(self, kind: str, **fields: Any) -> None:
        for channel in self._workers.values():
            channel.send(kind, **fields)


class Worker:
    """The connection of one pod to the coordinator, for one attempt.

    Attributes:
        attempt: Id of the attempt; "" until all pods have joined.
        final_status: "done" (all pods succeeded), "exit" (this pod exits with its code) or "restart"; "" while it runs.
        reason: Why the attempt ended.
        missing: The pods that have not joined yet.
    """

    def __init__(self, channel: Channel, group: str, pod: int) -> None:
        self._channel = channel
        self.attempt = ""
        self.final_status = ""
        self.reason = "pod 0 is gone"  # the only reason that the coordinator cannot send
        self.missing: list[int] = []
        channel.send("join", group=group, pod=pod)

    @property
    def is_over(self) -> bool:
        """Whether the attempt has ended for this pod."""
        return bool(self.final_status) or self._channel.is_lost

    def poll(self) -> None:
        """Read the messages of the coordinator."""
        for message in self._channel.receive():
            if message.get("kind") == "start":
                self.attempt = str(message["attempt"])
            elif message.get("kind") == "wait":
                self.missing = list(message["missing"])
            elif message.get("kind") in ("done", "exit", "restart"):
                self.final_status, self.reason = message["kind"], str(message.get("reason", ""))

    def report_exit(self, code: int) -> None:
        """Report the exit code of the processes of this pod."""
        self._channel.send("exited", code=code)

    def report_termination(self) -> None:
        """Report that this pod has received SIGTERM."""
        self._channel.send("terminating")

    def close(self) -> None:
        """Close the connection."""
        self._channel.close()


def join(group: str, pod: int, host: str, port: int) -> Worker | None:
    """Connect to the coordinator and ask to join; None if nobody answers there yet."""
    try:
        return Worker(Channel(socket.create_connection((host, port), timeout=HEARTBEAT_SECONDS)), group, pod)
    except OSError:
        return None


def root_cause(exit_codes: dict[int, int]) -> int:
    """Return the pod whose exit code names the cause (see `CAUSES`); among equals, the first that reported."""

    def rank(pod: int) -> int:
        code = exit_codes[pod]
        return next((n for n, codes in enumerate(CAUSES) if code in codes), len(CAUSES) + (code in STOPPED))

    return min((pod for pod, code in exit_codes.items() if code), key=rank)
