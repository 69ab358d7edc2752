"""Pods that train together stand and fall together: who is there, when all begin, who ended, when all begin anew.

The launcher of pod 0 keeps a roll (`Roll`). The launchers of all pods, its own too, are members of it (`Member`), by a
connection each. It needs no rights, no controller in the cluster and no driver.

- A generation begins when all pods have called in, and only then is torchrun started. A connection is good for one generation:
  before a launcher calls in again it has ended its processes. So no process meets the store or a peer of an earlier generation.
- A connection that breaks, or is silent for half a minute, is a pod that is gone: the others are told to end what they run,
  however deep in a computation or in NCCL it sits, and to call in again. Their containers stay; the Job replaces the one pod.
- A process that fails is reported. Since its peers fail with it, one pod is chosen to end with its exit code, the one that says
  most; the others call in again. So one failure costs the Job one pod, and the step one of its retries.
- Pods end well together: none does before all have, since the Job would not start it again when a peer still fails. What is
  left is a pod lost in the moment between: its successor waits for a gang that has ended, until the deadline or the user.

As with torch's own store, whoever reaches the port may speak; the network policy of k8s/components lets in other steps alone.
"""

import contextlib
import socket
import time
import uuid
from typing import Any

from fourfold_ops.errors import BAD_CONFIGURATION, STOPPED
from fourfold_ops.kubernetes.channel import BEAT_SECONDS, Channel

SETTLE_SECONDS = 5.0  # after the first failure, for its cause to be reported as well
PARTING_SECONDS = 30.0  # for the last words to be heard
REMIND_SECONDS = 30.0  # between lines that say who is missing
# Which exit code names the cause: one that the code chose, a death without a word, anything else, being stopped from outside.
TELLING = (BAD_CONFIGURATION, (137, 139, 135))


class Roll:
    """Who is there, kept by the launcher of pod 0. `poll` does all the work and never waits."""

    def __init__(self, name: str, num_pods: int, port: int) -> None:
        dual = socket.has_dualstack_ipv6()
        family = socket.AF_INET6 if dual else socket.AF_INET
        self._listener = socket.create_server(("", port), family=family, backlog=num_pods + 8, dualstack_ipv6=dual)
        self._listener.setblocking(False)
        self._name, self._num_pods = name, num_pods
        self._strangers: list[Channel] = []  # have not called in yet
        self._members: dict[int, Channel] = {}
        self._parting: list[Channel] = []  # have been told to go
        self._running = False
        self._reminded_at = 0.0
        self._forget()

    def _forget(self) -> None:
        self._ended: dict[int, int] = {}  # pod → exit code, in the order in which they were reported
        self._leaving: set[int] = set()  # have got a SIGTERM, and save what they can
        self._failed_at: float | None = None

    def poll(self) -> None:
        """Hear everybody, then decide."""
        with contextlib.suppress(BlockingIOError):
            while True:
                self._strangers.append(Channel(self._listener.accept()[0]))
        for channel in list(self._strangers):
            self._greet(channel)
        for index, channel in self._members.items():
            for word in channel.hear():
                self._note(index, word)
        self._part_for_good()
        if self._running:
            self._decide()
        else:
            self._muster()

    def linger(self) -> None:
        """Wait until all have gone, so that none loses its last word with this process."""
        deadline = time.monotonic() + PARTING_SECONDS
        while self._parting and time.monotonic() < deadline:
            self._part_for_good()
            time.sleep(0.05)

    def close(self) -> None:
        """Stop listening and leave all."""
        self._listener.close()
        for channel in (*self._strangers, *self._members.values(), *self._parting):
            channel.close()

    def _part_for_good(self) -> None:
        """Let go of those who have heard their last word, and left."""
        for channel in list(self._parting):
            channel.hear()
            if channel.is_lost:
                channel.close()
                self._parting.remove(channel)

    def _greet(self, channel: Channel) -> None:
        """Take in a pod that calls in, unless its place is taken: then that one ends first, and this one comes again."""
        for word in channel.hear()[:1]:
            self._strangers.remove(channel)
            index = word.get("pod")
            ours = word.get("word") == "here" and word.get("gang") == self._name
            if ours and isinstance(index, int) and index in self._places() and not self._running:
                self._members[index] = channel
                self._reminded_at = 0.0
            else:
                channel.close()
            return
        if channel.is_lost:
            channel.close()
            self._strangers.remove(channel)

    def _places(self) -> set[int]:
        """Return the places that nobody has taken."""
        return set(range(self._num_pods)) - set(self._members)

    def _muster(self) -> None:
        for index, channel in list(self._members.items()):
            if channel.is_lost:
                channel.close()
                del self._members[index]
        if len(self._members) == self._num_pods:
            self._running, generation = True, uuid.uuid4().hex[:12]
            self._tell(self._members, "go", generation=generation)
        elif time.monotonic() - self._reminded_at > REMIND_SECONDS:
            self._reminded_at = time.monotonic()
            self._tell(self._members, "wait", missing=sorted(self._places()))

    def _note(self, index: int, word: dict[str, Any]) -> None:
        if word.get("word") == "ended":
            self._ended[index] = int(word["code"])
            if self._ended[index] and self._failed_at is None:
                self._failed_at = time.monotonic()
        elif word.get("word") == "leaving":
            self._leaving.add(index)

    def _decide(self) -> None:
        lost = [index for index, channel in self._members.items() if channel.is_lost]
        everybody = len(self._ended) == self._num_pods
        if lost:
            self._begin_anew(f"pod {lost[0]} is gone")
        elif everybody and not any(self._ended.values()):
            self._tell(self._members, "over")
            self._part()
        elif self._failed_at is None or self._leaving:
            return  # of one that leaves, the others learn when it has gone: until then they may be saving together
        elif everybody or time.monotonic() - self._failed_at > SETTLE_SECONDS:
            cause = cause_of(self._ended)
            why = f"pod {cause} failed (exit {self._ended[cause]})"
            self._dismiss(cause)
            self._begin_anew(why)

    def _dismiss(self, index: int) -> None:
        channel = self._members.pop(index)
        channel.say("leave")
        self._parting.append(channel)

    def _begin_anew(self, why: str) -> None:
        self._tell(self._members, "again", why=why)
        self._part()

    def _part(self) -> None:
        self._parting += self._members.values()
        self._members, self._running = {}, False
        self._forget()

    def _tell(self, members: dict[int, Channel], word: str, **more: Any) -> None:
        for channel in members.values():
            channel.say(word, **more)


class Member:
    """A pod's place in one generation of its gang."""

    def __init__(self, channel: Channel, name: str, index: int) -> None:
        self._channel = channel
        self.generation = ""  # set once all are there
        self.verdict = ""  # "over", "leave" or "again"
        self.why = "pod 0 is gone"
        self.missing: list[int] = []
        channel.say("here", gang=name, pod=index)

    @property
    def is_over(self) -> bool:
        """Whether this generation has come to its end, for this pod at least."""
        return bool(self.verdict) or self._channel.is_lost

    def poll(self) -> None:
        """Hear what pod 0 says."""
        for word in self._channel.hear():
            if word.get("word") == "go":
                self.generation = str(word["generation"])
            elif word.get("word") == "wait":
                self.missing = list(word["missing"])
            elif word.get("word") in ("over", "leave", "again"):
                self.verdict, self.why = word["word"], str(word.get("why", ""))

    def ended(self, code: int) -> None:
        """Report how this pod's processes ended."""
        self._channel.say("ended", code=code)

    def leaving(self) -> None:
        """Report that this pod is told to go."""
        self._channel.say("leaving")

    def close(self) -> None:
        """Give up the place."""
        self._channel.close()


def call_in(name: str, index: int, host: str, port: int) -> Member | None:
    """Return a place in the gang, still to be confirmed; None where nobody answers yet."""
    try:
        return Member(Channel(socket.create_connection((host, port), timeout=BEAT_SECONDS)), name, index)
    except OSError:
        return None


def cause_of(ended: dict[int, int]) -> int:
    """Return the pod whose end says most: 78 before 137 before 1 before 143; of equals the one that was reported first."""

    def rank(index: int) -> int:
        code = ended[index]
        return next((n for n, codes in enumerate(TELLING) if code in codes), len(TELLING) + (code in STOPPED))

    return min((index for index, code in ended.items() if code), key=rank)
