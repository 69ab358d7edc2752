"""Complete logs of pods: a stream that breaks is reopened, without losing or repeating a line."""

import logging
import re
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from datetime import UTC, datetime
from pathlib import Path

from fourfold_ops.kubernetes.cluster.client import Cluster

logger = logging.getLogger(__name__)
OpenStream = Callable[[str | None], Iterable[bytes]]  # start time, None for all → lines with timestamps
LAST_LINES_SECONDS = 15.0  # to wait for the last lines after a pod has ended
MAX_PAUSE_SECONDS = 30.0  # between two streams of a log without new lines
TIMESTAMP = re.compile(rb"^(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d)(\.\d+)?(Z|[+-]\d\d:\d\d) ?")


class SeenLines:
    """Filters the lines that earlier streams have already yielded.

    The server accepts a start time in whole seconds, so a new stream repeats the lines of that second. Timestamps never
    decrease within a log, but several lines can share one: therefore the lines of the last timestamp are counted.
    """

    def __init__(self) -> None:
        self._last: tuple[str, str] = ("", "")  # second and fraction; both compare as text
        self._count = 0  # lines with that timestamp
        self._replayed = 0  # of these, in the current stream

    @property
    def since(self) -> str | None:
        """Start time of the next stream; None for the whole log."""
        return f"{self._last[0]}Z" if self._last[0] else None

    def reopened(self) -> None:
        """Note that a new stream starts at `since`."""
        self._replayed = 0

    def new(self, line: bytes) -> bytes | None:
        """Return the line without its timestamp, or None if it was seen before."""
        match = TIMESTAMP.match(line)
        if match is None:
            return line  # a message of the server without a timestamp, e.g. about a rotated log
        time = (_utc(match), (match[2] or b".").decode().ljust(10, "0"))
        if time < self._last:
            return None
        if time == self._last:
            self._replayed += 1
            if self._replayed <= self._count:
                return None
            self._count = self._replayed
        else:
            self._last, self._count, self._replayed = time, 1, 1
        return line[match.end() :]


def _utc(match: re.Match[bytes]) -> str:
    if match[3] == b"Z":
        return match[1].decode()
    moment = datetime.fromisoformat((match[1] + match[3]).decode())
    return moment.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S")


def complete_log(open_stream: OpenStream, ended: Callable[[], bool], pause: Callable[[], object]) -> Iterator[str]:
    """Yield every line of a log once, in order.

    A line that a broken stream leaves incomplete is skipped, because the next stream repeats it completely. After the
    end of the pod it is yielded.

    Args:
        open_stream: Opens a stream at a start time.
        ended: Returns whether the pod has ended. While it has not, the stream is reopened.
        pause: Called between two streams.
    """
    seen = SeenLines()
    while True:
        over = ended()  # before reading, so that the stream contains all lines up to the end
        seen.reopened()
        for line in open_stream(seen.since):
            if (line.endswith(b"\n") or over) and (text := seen.new(line)) is not None:
                yield text.decode("utf-8", "replace").rstrip("\r\n")
        if over:
            return
        pause()


class Follower(threading.Thread):
    """Writes the log of one pod to a file and passes each line to `on_line`.

    A stream that has ended is reopened after `pause_seconds`, then after growing pauses while no line arrives: a
    process can end long before the cluster reports it, and hundreds of such logs must not be polled at a high rate.
    """

    def __init__(self, open_stream: OpenStream, path: Path, on_line: Callable[[str], None], pause_seconds: float = 3.0) -> None:
        super().__init__(daemon=True, name=f"log of {path.stem}")
        self._open, self._path, self._on_line = open_stream, path, on_line
        self._first_pause = self._pause = pause_seconds
        self._ended = threading.Event()

    def end(self) -> None:
        """Note that the pod has ended: the thread reads the remaining lines and ends."""
        self._ended.set()

    def run(self) -> None:
        """Follow the log until the pod has ended."""
        self._path.parent.mkdir(parents=True, exist_ok=True)
        try:
            with self._path.open("w", encoding="utf-8") as file:
                for line in complete_log(self._open, self._ended.is_set, self._wait):
                    self._pause = self._first_pause
                    file.write(line + "\n")
                    file.flush()
                    self._on_line(line)
        except Exception as error:  # a log that cannot be read must not stop the run
            logger.debug("Stopped following the log of %s: %s", self._path.stem, error)

    def _wait(self) -> None:
        """Wait before the next stream; return early if the pod ends."""
        self._ended.wait(self._pause)
        self._pause = min(2 * self._pause, MAX_PAUSE_SECONDS)


class PodLogs:
    """Follows the logs of a run's pods.

    Args:
        cluster: Where the pods run.
        folder: Receives one file per pod, named POD.txt.
        on_line: Called with the name of the Job and a line, from the thread that follows the pod.
    """

    def __init__(self, cluster: Cluster, folder: Path, on_line: Callable[[str, str], None]) -> None:
        self._cluster, self._folder, self._on_line = cluster, folder, on_line
        self._followers: dict[str, dict[str, Follower]] = {}  # job → pod → follower

    def follow(self, job: str, pod: str) -> None:
        """Start following a pod, unless it is followed already."""
        followers = self._followers.setdefault(job, {})
        if pod in followers:
            return
        path = self._folder / f"{pod}.txt"
        follower = Follower(lambda since: self._cluster.log(pod, since), path, lambda line: self._on_line(job, line))
        followers[pod] = follower
        follower.start()

    def end(self, job: str, pod: str) -> None:
        """Note that a pod has ended."""
        if follower := self._followers.get(job, {}).get(pod):
            follower.end()

    def collect(self, job: str) -> list[Path]:
        """Wait for the last lines and return all log files of a Job's pods.

        These include the files that the pods themselves wrote to the shared volume, which exist even for a pod that was
        deleted before it could be followed.
        """
        followers = self._followers.get(job, {}).values()
        for follower in followers:
            follower.end()
        deadline = time.monotonic() + LAST_LINES_SECONDS
        for follower in followers:
            follower.join(max(0.0, deadline - time.monotonic()))
        files = sorted(self._folder.glob(f"{job}-*")) if self._folder.is_dir() else []
        return [path for path in files if path.stat().st_size]
