"""Cache of the Jobs, pods and events of a run, kept current by watches.

One thread per watch puts messages into a queue; the thread of the orchestrator applies them to the cache. So the
cache needs no lock.
"""

import threading
from collections import defaultdict
from collections.abc import Callable, Iterator
from typing import Any

from fourfold_ops.kubernetes.cluster.client import ApiError, Cluster
from fourfold_ops.kubernetes.cluster.objects import JOB_LABEL, Object, trimmed, trimmed_event, trimmed_job

WATCHED = ("jobs", "pods", "events")
MAX_EVENTS = 10  # kept per object
Change = tuple[str, str, dict[str, Any]]  # resource, "MODIFIED" or "DELETED", object


class WatchCache:
    """The last known state of a run's objects.

    Args:
        cluster: Used to confirm that a Job no longer exists.
        names: Names of the Jobs that the run may have; events about other objects are dropped.
    """

    def __init__(self, cluster: Cluster, names: set[str]) -> None:
        self.jobs: dict[str, dict[str, Any]] = {}
        self.pods: dict[str, dict[str, Any]] = {}
        self.events: dict[str, list[dict[str, Any]]] = defaultdict(list)  # by the name of the object that they are about
        self._cluster, self._names = cluster, names
        self._listed: set[str] = set()

    @property
    def is_complete(self) -> bool:
        """Whether every resource has been listed once: before that, a Job that exists could be submitted again."""
        return len(self._listed) == len(WATCHED)

    def pods_of(self, job: str) -> list[dict[str, Any]]:
        """Return the pods of all Jobs of this name, also of a deleted one."""
        return [pod for pod in self.pods.values() if pod["metadata"]["labels"].get(JOB_LABEL) == job]

    def add_job(self, job: dict[str, Any]) -> None:
        """Add a Job that has just been created or read, before the watch reports it."""
        self.jobs[job["metadata"]["name"]] = trimmed_job(job)

    def apply(self, resource: str, message: tuple[str, Any]) -> Iterator[Change]:
        """Apply a message of a watch, and yield each change after the cache contains it."""
        kind, found = message
        if kind != "LISTED":
            yield from self._one(resource, kind, found)
            return
        for lost in self._vanished(resource, {one["metadata"]["name"] for one in found}):
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

    def _vanished(self, resource: str, listed: set[str]) -> list[dict[str, Any]]:
        """Return the cached objects that a new list lacks.

        A list may be older than a Job that was just created, so the absence of a Job is confirmed with a call.
        """
        if resource == "pods":
            return [pod for name, pod in self.pods.items() if name not in listed]
        if resource == "jobs":
            return [job for name, job in self.jobs.items() if name not in listed and self._is_deleted(name)]
        return []

    def _is_deleted(self, job: str) -> bool:
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
            self.events[about] = [*self.events[about][1 - MAX_EVENTS :], trimmed_event(event)]


def start_watches(cluster: Cluster, selector: str, put: Callable[[str, Any], None]) -> None:
    """Start one daemon thread per resource.

    Each passes its messages to `put(resource, message)`, and an error to `put("error", error)`.
    """

    def listen(resource: str) -> None:
        try:
            for message in cluster.watch(resource, "" if resource == "events" else selector):
                put(resource, message)
        except BaseException as error:
            put("error", error)

    for resource in WATCHED:
        threading.Thread(target=listen, args=(resource,), daemon=True, name=f"watch {resource}").start()
