"""What the JSON of Jobs, pods and events says, as the server sends it. Pure: nothing is decided here, or put in words."""

from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import Any

Object = Mapping[str, Any]
JOB_LABEL = "batch.kubernetes.io/job-name"
OWNER_LABEL = "batch.kubernetes.io/controller-uid"
QUEUE_LABEL = "kueue.x-k8s.io/queue-name"
GONE = "gone"  # in place of the time of deletion: the pod is no more
KEPT_OF_METADATA = ("name", "labels", "creationTimestamp", "deletionTimestamp")
KEPT_OF_EVENTS = ("reason", "message", "lastTimestamp", "eventTime", "type")


def name_of(found: Object) -> str:
    """Return an object's name."""
    return str(found.get("metadata", {}).get("name", ""))


def condition(found: Object, kind: str) -> dict[str, Any] | None:
    """Return the condition of a kind that an object has, true or false; None where nobody has set it."""
    conditions = found.get("status", {}).get("conditions") or []
    return next((dict(c) for c in conditions if c.get("type") == kind and c.get("status") in ("True", "False")), None)


def is_true(found: Object, kind: str) -> bool:
    """Tell whether an object has a condition and it holds."""
    return (condition(found, kind) or {}).get("status") == "True"


# --- Jobs ---


def is_complete(job: Object) -> bool:
    """Tell whether a Job has ended well."""
    return is_true(job, "Complete")


def has_failed(job: Object) -> bool:
    """Tell whether a Job has failed for good."""
    return is_true(job, "Failed")


def is_finished(job: Object) -> bool:
    """Tell whether a Job is at its end."""
    return is_complete(job) or has_failed(job)


def indexes(text: str) -> list[int]:
    """Return the numbers of Kubernetes' short form, e.g. "1,3-5"."""
    found: list[int] = []
    for part in text.split(","):
        first, _, last = part.partition("-")
        found += range(int(first), int(last or first) + 1)
    return found


# --- pods ---


def phase(pod: Object) -> str:
    """Return Pending, Running, Succeeded, Failed or Unknown."""
    return str(pod.get("status", {}).get("phase", ""))


def node_of(pod: Object) -> str:
    """Return the node that a pod is on; "" before it has one."""
    return str(pod.get("spec", {}).get("nodeName", ""))


def container_statuses(pod: Object) -> list[dict[str, Any]]:
    """Return what kubelet says of the pod's containers."""
    return list(pod.get("status", {}).get("containerStatuses") or [])


def has_started(pod: Object) -> bool:
    """Tell whether a pod's container has a log."""
    states = [status["state"] for status in container_statuses(pod)]
    return any("running" in state or "terminated" in state for state in states)


def is_out_of_reach(pod: Object) -> bool:
    """Tell whether a pod ought to run, but its node speaks of it no more: without probes a pod is ready while it runs."""
    if phase(pod) == "Unknown":
        return True
    states = [status.get("state", {}) for status in container_statuses(pod)]
    unready = (condition(pod, "Ready") or {}).get("status") == "False"
    return phase(pod) == "Running" and unready and bool(states) and all("running" in state for state in states)


def terminated(pod: Object) -> dict[str, Any]:
    """Return how the pod's container ended: exitCode, reason, message; empty while it runs."""
    for status in container_statuses(pod):
        for state in (status.get("state", {}), status.get("lastState", {})):
            if "terminated" in state:
                return dict(state["terminated"])
    return {}


def ended_at(pod: Object) -> float:
    """Return when a pod's container ended, in seconds; when it was made, if nobody says."""
    at = terminated(pod).get("finishedAt") or pod.get("metadata", {}).get("creationTimestamp")
    return datetime.fromisoformat(at).timestamp() if at else 0.0


def limits(pod: Object) -> dict[str, str]:
    """Return what the pod's container may use at most, by resource."""
    return _resources(pod, "limits")


def requests(pod: Object) -> dict[str, str]:
    """Return what the pod's container is promised, which a node must have for it, by resource."""
    return _resources(pod, "requests")


def _resources(pod: Object, kind: str) -> dict[str, str]:
    containers = pod.get("spec", {}).get("containers", [{}])
    return dict(containers[0].get("resources", {}).get(kind, {}))


def image(pod: Object) -> str:
    """Return the image that the pod asks for."""
    return str(pod.get("spec", {}).get("containers", [{}])[0].get("image", ""))


# --- what is kept of them: there are hundreds ---


def trimmed(pod: Object) -> dict[str, Any]:
    """Return of a pod what is looked at."""
    metadata = {key: value for key, value in pod["metadata"].items() if key in KEPT_OF_METADATA}
    containers = [{key: container.get(key) for key in ("image", "resources")} for container in pod["spec"]["containers"]]
    spec = {"nodeName": pod["spec"].get("nodeName", ""), "containers": containers}
    return {"metadata": metadata, "spec": spec, "status": pod["status"]}


def trimmed_job(job: Object) -> dict[str, Any]:
    """Return of a Job what is looked at: its pods' template and the server's book on who set which field are most of it."""
    metadata = {key: value for key, value in job["metadata"].items() if key != "managedFields"}
    spec = {key: value for key, value in job.get("spec", {}).items() if key != "template"}
    return {"metadata": metadata, "spec": spec, "status": job.get("status", {})}


def trimmed_event(event: Object) -> dict[str, Any]:
    """Return of an event what is looked at."""
    return {key: event.get(key) for key in KEPT_OF_EVENTS}


def latest(events: Iterable[Object]) -> Object | None:
    """Return the event that was seen last; of those of one moment, the one that was told last."""
    newest_first = reversed(list(events))
    return max(newest_first, key=lambda e: str(e.get("lastTimestamp") or e.get("eventTime") or ""), default=None)
