"""A scripted cluster in memory for tests of the orchestrator."""

import copy
import queue
import threading
from collections import Counter

from fourfold_ops.kubernetes.cluster.client import ApiError

NOW = "2026-01-01T00:00:00Z"


class ScriptedCluster:
    """Has the methods of `Cluster` that the orchestrator uses; `on_create(cluster, job)` is called for each new Job."""

    server = "https://scripted"

    def __init__(self, on_create):
        self.objects = {"jobs": {}, "pods": {}, "services": {}, "events": {}}
        self.calls = Counter()
        self.unreachable_since = None
        self.closed = threading.Event()
        self.created = []
        self._on_create = on_create
        self._watches = {"jobs": [], "pods": [], "events": []}
        self._uids = iter(range(10_000))

    def create(self, resource, manifest):
        self.calls[f"create {resource}"] += 1
        name = manifest["metadata"]["name"]
        if name in self.objects[resource]:
            raise ApiError(409, "create", resource, "ns", "exists")
        found = copy.deepcopy(manifest)
        found["metadata"] |= {"uid": str(next(self._uids)), "creationTimestamp": NOW}
        found.setdefault("status", {})
        self.objects[resource][name] = found
        if resource == "jobs":
            self.created.append(name)
            self.notify("jobs", "ADDED", found)
            self._on_create(self, found)
        return copy.deepcopy(found)

    def get(self, resource, name):
        self.calls[f"get {resource}"] += 1
        if name not in self.objects[resource]:
            raise ApiError(404, "get", resource, "ns", "gone")
        return copy.deepcopy(self.objects[resource][name])

    def all(self, resource, selector=""):
        wanted = dict(pair.split("=") for pair in selector.split(",") if pair)
        there = self.objects[resource].values()
        return [copy.deepcopy(found) for found in there if wanted.items() <= found["metadata"]["labels"].items()]

    def delete(self, resource, name, propagation="Foreground", grace=None):
        found = self.objects[resource].pop(name, None)
        if found is not None:
            self.notify(resource, "DELETED", found)
        return found is not None

    def watch(self, resource, selector=""):
        events = queue.Queue()
        self._watches[resource].append(events)
        yield "LISTED", self.all(resource, selector)
        while not self.closed.is_set():
            try:
                yield events.get(timeout=0.05)
            except queue.Empty:
                continue

    def log(self, pod, since=None, follow=True):
        yield b"2026-01-01T00:00:00.1Z 00:00:00 INFO    work: 3/4 steps, 2 steps/s\n"

    def notify(self, resource, kind, found):
        for events in self._watches[resource]:
            events.put((kind, copy.deepcopy(found)))

    def pod(self, job, name, phase, code=None, reason="Error", conditions=(), message="", node="node-0"):
        """Add or change a pod of a Job."""
        state = (
            {"running": {}}
            if code is None
            else {"terminated": {"exitCode": code, "reason": reason, "message": message, "finishedAt": NOW}}
        )
        statuses = [] if phase == "Pending" else [{"state": state, "image": "x"}]
        labels = {
            **job["metadata"]["labels"],
            "batch.kubernetes.io/job-name": job["metadata"]["name"],
            "batch.kubernetes.io/controller-uid": job["metadata"]["uid"],
        }
        found = {
            "metadata": {"name": name, "creationTimestamp": NOW, "labels": labels},
            "spec": {"nodeName": node, "containers": [{"image": "x", "resources": {"limits": {"memory": "1Gi"}}}]},
            "status": {"phase": phase, "conditions": list(conditions), "containerStatuses": statuses},
        }
        self.objects["pods"][name] = found
        self.notify("pods", "MODIFIED", found)

    def end(self, job, kind, **status):
        """End a Job with the condition "Complete" or "Failed"."""
        found = self.objects["jobs"][job["metadata"]["name"]]
        found["status"] = {"conditions": [{"type": kind, "status": "True", "reason": "x"}], "completionTime": NOW, **status}
        self.notify("jobs", "MODIFIED", found)


def succeed(cluster, job):
    """Let a Job run and succeed."""
    name = job["metadata"]["name"]
    cluster.pod(job, f"{name}-a", "Running")
    cluster.pod(job, f"{name}-a", "Succeeded", 0, "Completed")
    cluster.end(job, "Complete")
