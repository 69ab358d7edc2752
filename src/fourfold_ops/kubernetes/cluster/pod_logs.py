"""A pod's log, whole: streams are cut and taken up again by the time of the last line, without losing or repeating one."""

import logging
import re
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from datetime import UTC, datetime
from pathlib import Path

from fourfold_ops.kubernetes.cluster.client import Cluster

logger = logging.getLogger(__name__)
Open = Callable[[str | None], Iterable[bytes]]  # since when → lines with their times
LAST_LINES_SECONDS = 15.0  # for the last lines of a log to arrive
LONGEST_PAUSE = 30.0  # seconds between two streams of a log in which nothing is new
STAMP = re.compile(rb"^(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d)(\.\d+)?(Z|[+-]\d\d:\d\d) ?")


class SeenLines:
    """Which lines have been seen, so that a stream which starts again some lines earlier repeats none.

    The server takes "since" in whole seconds and gives all lines of that second once more. Times never go back within a log;
    several lines may have the same time, so those of the last one are counted.
    """

    def __init__(self) -> None:
        self._last: tuple[str, str] = ("", "")  # second, fraction: compares as text
        self._count = 0  # lines with that time
        self._replayed = 0  # of these, in the stream that is open

    @property
    def since(self) -> str | None:
        """What to ask for: None for the whole log."""
        return f"{self._last[0]}Z" if self._last[0] else None

    def reopened(self) -> None:
        """A stream begins at `since`."""
        self._replayed = 0

    def new(self, line: bytes) -> bytes | None:
        """Return the line without its time if it has not been seen, else None."""
        match = STAMP.match(line)
        if match is None:
            return line  # the server's own remark, e.g. that the log was rotated away
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


def whole_log(open_stream: Open, ended: Callable[[], bool], pause: Callable[[], object]) -> Iterator[str]:
    """Yield every line of a log once, in order, opening the stream again until `ended` says that no more will come.

    A line that a cut left unfinished is not yielded: it comes whole with the next stream; after the end it is taken as it is.
    """
    seen = SeenLines()
    while True:
        over = ended()  # asked before reading: what was written before the end is then in the stream
        seen.reopened()
        for line in open_stream(seen.since):
            if (line.endswith(b"\n") or over) and (text := seen.new(line)) is not None:
                yield text.decode("utf-8", "replace").rstrip("\r\n")
        if over:
            return
        pause()


class Follower(threading.Thread):
    """Follows one pod's log into a file, and hands each line to `on_line`.

    A stream that ended is opened again at first after `pause_seconds`, and later and later while nothing new comes: a process
    may be over long before the cluster says so of its pod, and hundreds of those must not be asked for every moment.
    """

    def __init__(self, open_stream: Open, path: Path, on_line: Callable[[str], None], pause_seconds: float = 3.0) -> None:
        super().__init__(daemon=True, name=f"log of {path.stem}")
        self._open, self._path, self._on_line = open_stream, path, on_line
        self._first_pause = self._pause = pause_seconds
        self._ended = threading.Event()

    def end(self) -> None:
        """Say that the pod is done: what is left is read, then the thread ends."""
        self._ended.set()

    def run(self) -> None:
        """Follow until the end."""
        self._path.parent.mkdir(parents=True, exist_ok=True)
        try:
            with self._path.open("w", encoding="utf-8") as file:
                for line in whole_log(self._open, self._ended.is_set, self._rest):
                    self._pause = self._first_pause
                    file.write(line + "\n")
                    file.flush()
                    self._on_line(line)
        except Exception as error:  # a log that cannot be had must not stop the work that it is about
            logger.debug("The log of %s ends early: %s", self._path.stem, error)

    def _rest(self) -> None:
        """Wait for the next stream, or for the end."""
        self._ended.wait(self._pause)
        self._pause = min(2 * self._pause, LONGEST_PAUSE)


class PodLogs:
    """Follows the logs of a run's pods into `folder`, one file per pod.

    `on_line(job, line)` is called from the threads that follow them.
    """

    def __init__(self, cluster: Cluster, folder: Path, on_line: Callable[[str, str], None]) -> None:
        self._cluster, self._folder, self._on_line = cluster, folder, on_line
        self._followers: dict[str, dict[str, Follower]] = {}  # job → pod → follower

    def follow(self, job: str, pod: str) -> None:
        """Begin to follow a pod of a Job, once."""
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

    def harvest(self, job: str) -> list[Path]:
        """Wait for the last lines and return all log files of the Job's pods.

        Among them are those that the pods wrote on the shared volume themselves: they are there even of a pod that was gone
        before anybody followed it.
        """
        followers = self._followers.get(job, {}).values()
        for follower in followers:
            follower.end()
        deadline = time.monotonic() + LAST_LINES_SECONDS
        for follower in followers:
            follower.join(max(0.0, deadline - time.monotonic()))
        files = sorted(self._folder.glob(f"{job}-*")) if self._folder.is_dir() else []
        return [path for path in files if path.stat().st_size]
