"""The cluster as its watches last told it: Jobs, pods and events, with nothing decided.

The watches' own threads only put what they are told into the conductor's queue; it is taken in by the conductor's thread.
"""

import threading
from collections import defaultdict
from collections.abc import Callable, Iterator
from typing import Any

from fourfold_ops.kubernetes.cluster.client import ApiError, Cluster
from fourfold_ops.kubernetes.cluster.objects import JOB_LABEL, Object, trimmed, trimmed_event, trimmed_job

WATCHED = ("jobs", "pods", "events")
EVENTS_KEPT = 10  # about one object
Change = tuple[str, str, dict[str, Any]]  # resource, "MODIFIED" or "DELETED", object


class WatchCache:
    """What is there. `names`: of the Jobs that a run may have; events about others are not kept."""

    def __init__(self, cluster: Cluster, names: set[str]) -> None:
        self.jobs: dict[str, dict[str, Any]] = {}
        self.pods: dict[str, dict[str, Any]] = {}
        self.events: dict[str, list[dict[str, Any]]] = defaultdict(list)  # by the name of what they are about
        self._cluster, self._names = cluster, names
        self._listed: set[str] = set()

    @property
    def is_whole(self) -> bool:
        """Whether all has been listed once: nothing may start before all is seen."""
        return len(self._listed) == len(WATCHED)

    def pods_of(self, job: str) -> list[dict[str, Any]]:
        """Return the pods of a Job of this name, maybe of one that was deleted."""
        return [pod for pod in self.pods.values() if pod["metadata"]["labels"].get(JOB_LABEL) == job]

    def remember(self, job: dict[str, Any]) -> None:
        """Show a Job that has just been created or looked up, before its watch tells of it."""
        self.jobs[job["metadata"]["name"]] = trimmed_job(job)

    def take(self, resource: str, message: tuple[str, Any]) -> Iterator[Change]:
        """Take in what a watch tells, and yield each change once the mirror shows it."""
        kind, found = message
        if kind != "LISTED":
            yield from self._one(resource, kind, found)
            return
        for lost in self._lost(resource, {one["metadata"]["name"] for one in found}):
            yield from self._one(resource, "DELETED", lost)
        for one in found:
            yield from self._one(resource, "MODIFIED", one)
        self._listed.add(resource)

    def _one(self, resource: str, kind: str, found: dict[str, Any]) -> Iterator[Change]:
        if resource == "events":
            self._keep_event(kind, found)
            return
        kept = self.jobs if resource == "jobs" else self.pods
        found = trimmed_job(found) if resource == "jobs" else trimmed(found)
        name = found["metadata"]["name"]
        if kind == "DELETED":
            kept.pop(name, None)
        else:
            kept[name] = found
        yield resource, "DELETED" if kind == "DELETED" else "MODIFIED", found

    def _lost(self, resource: str, there: set[str]) -> list[dict[str, Any]]:
        """Return what was there and is in a new list no more; that list may be older than a Job."""
        if resource == "pods":
            return [pod for name, pod in self.pods.items() if name not in there]
        if resource == "jobs":
            return [job for name, job in self.jobs.items() if name not in there and self._is_gone(name)]
        return []

    def _is_gone(self, job: str) -> bool:
        try:
            self._cluster.get("jobs", job)
        except ApiError as error:
            if error.status == 404:
                return True
            raise
        return False

    def _keep_event(self, kind: str, event: Object) -> None:
        about = event.get("involvedObject", {}).get("name", "")
        if kind != "DELETED" and any(name in about for name in self._names):
            self.events[about] = [*self.events[about][1 - EVENTS_KEPT :], trimmed_event(event)]


def start_watches(cluster: Cluster, selector: str, put: Callable[[str, Any], None]) -> None:
    """Watch from now on, a thread for each resource; what is told and what goes wrong is handed to `put`."""

    def listen(resource: str) -> None:
        try:
            for message in cluster.watch(resource, "" if resource == "events" else selector):
                put(resource, message)
        except BaseException as error:
            put("error", error)

    for resource in WATCHED:
        threading.Thread(target=listen, args=(resource,), daemon=True, name=f"watch {resource}").start()
