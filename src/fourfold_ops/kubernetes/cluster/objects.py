"""Reads fields of Jobs, pods and events, which are plain JSON objects as the server sends them.

Pure functions; interpreting what they return is left to `verdicts`.
"""

from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import Any

Object = Mapping[str, Any]
JOB_LABEL = "batch.kubernetes.io/job-name"
OWNER_LABEL = "batch.kubernetes.io/controller-uid"
QUEUE_LABEL = "kueue.x-k8s.io/queue-name"
GONE = "gone"  # replaces the deletion timestamp of a pod that no longer exists
METADATA_FIELDS = ("name", "labels", "creationTimestamp", "deletionTimestamp")
EVENT_FIELDS = ("reason", "message", "lastTimestamp", "eventTime", "type")


def name_of(found: Object) -> str:
    """Return the name of an object."""
    return str(found.get("metadata", {}).get("name", ""))


def condition(found: Object, kind: str) -> dict[str, Any] | None:
    """Return a condition of an object, whether it is true or false; None if it is not set."""
    conditions = found.get("status", {}).get("conditions") or []
    return next((dict(c) for c in conditions if c.get("type") == kind and c.get("status") in ("True", "False")), None)


def is_true(found: Object, kind: str) -> bool:
    """Return whether a condition of an object is set and true."""
    return (condition(found, kind) or {}).get("status") == "True"


# --- Jobs ---


def is_complete(job: Object) -> bool:
    """Return whether a Job has succeeded."""
    return is_true(job, "Complete")


def has_failed(job: Object) -> bool:
    """Return whether a Job has failed and is not retried."""
    return is_true(job, "Failed")


def is_finished(job: Object) -> bool:
    """Return whether a Job has succeeded or failed."""
    return is_complete(job) or has_failed(job)


def indexes(text: str) -> list[int]:
    """Return the indexes of a compressed list of Kubernetes: [1, 3, 4, 5] for "1,3-5"."""
    numbers: list[int] = []
    for part in text.split(","):
        first, _, last = part.partition("-")
        numbers += range(int(first), int(last or first) + 1)
    return numbers


# --- pods ---


def phase(pod: Object) -> str:
    """Return the phase of a pod: Pending, Running, Succeeded, Failed or Unknown."""
    return str(pod.get("status", {}).get("phase", ""))


def node_of(pod: Object) -> str:
    """Return the node of a pod; "" before it is scheduled."""
    return str(pod.get("spec", {}).get("nodeName", ""))


def container_statuses(pod: Object) -> list[dict[str, Any]]:
    """Return the container statuses that kubelet has reported."""
    return list(pod.get("status", {}).get("containerStatuses") or [])


def has_started(pod: Object) -> bool:
    """Return whether the container of a pod has started, so that it has a log."""
    states = [status["state"] for status in container_statuses(pod)]
    return any("running" in state or "terminated" in state for state in states)


def is_unreachable(pod: Object) -> bool:
    """Return whether a running pod has stopped being reported by its node.

    The node controller then sets Ready to false. Our pods have no readiness probe, so a reachable one is ready while
    it runs.
    """
    if phase(pod) == "Unknown":
        return True
    states = [status.get("state", {}) for status in container_statuses(pod)]
    unready = (condition(pod, "Ready") or {}).get("status") == "False"
    return phase(pod) == "Running" and unready and bool(states) and all("running" in state for state in states)


def terminated(pod: Object) -> dict[str, Any]:
    """Return how the container of a pod ended (exitCode, reason, message); empty while it runs."""
    for status in container_statuses(pod):
        for state in (status.get("state", {}), status.get("lastState", {})):
            if "terminated" in state:
                return dict(state["terminated"])
    return {}


def ended_at(pod: Object) -> float:
    """Return when the container of a pod ended, as a Unix time; when the pod was created, if that is unknown."""
    at = terminated(pod).get("finishedAt") or pod.get("metadata", {}).get("creationTimestamp")
    return datetime.fromisoformat(at).timestamp() if at else 0.0


def limits(pod: Object) -> dict[str, str]:
    """Return the resource limits of a pod's container."""
    return _resources(pod, "limits")


def requests(pod: Object) -> dict[str, str]:
    """Return the resource requests of a pod's container."""
    return _resources(pod, "requests")


def _resources(pod: Object, kind: str) -> dict[str, str]:
    containers = pod.get("spec", {}).get("containers", [{}])
    return dict(containers[0].get("resources", {}).get(kind, {}))


def image(pod: Object) -> str:
    """Return the image of a pod's container."""
    return str(pod.get("spec", {}).get("containers", [{}])[0].get("image", ""))


# --- copies without unused fields, since a run may keep hundreds of objects in memory ---


def trimmed(pod: Object) -> dict[str, Any]:
    """Return the fields of a pod that are used."""
    metadata = {key: value for key, value in pod["metadata"].items() if key in METADATA_FIELDS}
    containers = [{key: container.get(key) for key in ("image", "resources")} for container in pod["spec"]["containers"]]
    spec = {"nodeName": pod["spec"].get("nodeName", ""), "containers": containers}
    return {"metadata": metadata, "spec": spec, "status": pod["status"]}


def trimmed_job(job: Object) -> dict[str, Any]:
    """Return a Job without its pod template and managed fields, which are most of its size."""
    metadata = {key: value for key, value in job["metadata"].items() if key != "managedFields"}
    spec = {key: value for key, value in job.get("spec", {}).items() if key != "template"}
    return {"metadata": metadata, "spec": spec, "status": job.get("status", {})}


def trimmed_event(event: Object) -> dict[str, Any]:
    """Return the fields of an event that are used."""
    return {key: event.get(key) for key in EVENT_FIELDS}


def latest(events: Iterable[Object]) -> Object | None:
    """Return the newest event; among events of the same second, the one that arrived last."""
    newest_first = reversed(list(events))
    return max(newest_first, key=lambda e: str(e.get("lastTimestamp") or e.get("eventTime") or ""), default=None)
