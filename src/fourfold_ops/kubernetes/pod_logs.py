"""The logs of a run's pods: followed while they run, kept when they end."""

import time
from collections.abc import Callable
from pathlib import Path

from fourfold_ops.kubernetes.client import Cluster
from fourfold_ops.kubernetes.following import Follower
from fourfold_ops.kubernetes.work import Work

LAST_LINES_SECONDS = 15.0  # for the last lines of a log to arrive


class PodLogs:
    """Follows logs into `folder`, one file a pod; `on_line(job, line)` is called from the followers' threads."""

    def __init__(self, cluster: Cluster, folder: Path, on_line: Callable[[str, str], None]) -> None:
        self._cluster, self._folder, self._on_line = cluster, folder, on_line

    def follow(self, work: Work, pod: str) -> None:
        """Begin to follow a pod, once."""
        if pod in work.followers:
            return
        job = work.spec.name
        path = self._folder / f"{pod}.txt"
        follower = Follower(lambda since: self._cluster.log(pod, since), path, lambda line: self._on_line(job, line))
        work.followers[pod] = follower
        follower.start()

    def end(self, work: Work, pod: str) -> None:
        """Say that a pod has ended."""
        if pod in work.followers:
            work.followers[pod].end()

    def harvest(self, work: Work) -> list[Path]:
        """Wait for the last lines and return all log files of the Job's pods.

        Among them are those that the pods wrote on the shared volume themselves: they are there even of a pod that was gone
        before anybody followed it.
        """
        for follower in work.followers.values():
            follower.end()
        deadline = time.monotonic() + LAST_LINES_SECONDS
        for follower in work.followers.values():
            follower.join(max(0.0, deadline - time.monotonic()))
        files = sorted(self._folder.glob(f"{work.spec.name}-*")) if self._folder.is_dir() else []
        return [path for path in files if path.stat().st_size]
