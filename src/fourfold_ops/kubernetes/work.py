"""A remote step's Job as it is followed, and what its JSON says. Pure."""

import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from fourfold_ops.kubernetes.following import Follower
from fourfold_ops.kubernetes.manifest import JobSpec
from fourfold_ops.kubernetes.progress import Progress
from fourfold_ops.kubernetes.steps import Step

Object = dict[str, Any]
JOB_LABEL = "batch.kubernetes.io/job-name"
OWNER_LABEL = "batch.kubernetes.io/controller-uid"
LIVE = ("Running", "Succeeded")  # a pod that is done is no reason to say that the step waits


@dataclass
class Work:
    """One Job of one step."""

    step: Step
    spec: JobSpec
    submitted: float = field(default_factory=time.monotonic)
    job: Object = field(default_factory=dict)
    pods: dict[str, Object] = field(default_factory=dict)
    followers: dict[str, Follower] = field(default_factory=dict)
    progress: Progress = field(default_factory=Progress)
    replacing: bool = False  # an older Job of this name has to go first
    has_run: bool = False
    was_done: bool = False  # before this drive
    reason: tuple[str, float] = ("", 0.0)  # why it waits, and since when
    told: set[str] = field(default_factory=set)  # pods whose end has been spoken of

    def owns(self, pod: Mapping[str, Any]) -> bool:
        """Tell whether a pod is of this very Job, not of a deleted one of the same name."""
        owner = pod["metadata"]["labels"].get(OWNER_LABEL)
        return owner is None or not self.job or owner == self.job["metadata"]["uid"]

    @property
    def live_pods(self) -> list[Object]:
        """Pods that run or have ended well, and are not being taken away."""
        return [
            pod
            for pod in self.pods.values()
            if pod["status"].get("phase") in LIVE and "deletionTimestamp" not in pod["metadata"]
        ]

    @property
    def num_pods(self) -> int:
        """How many pods it has when all are there."""
        return len(self.spec.parts) or self.spec.num_nodes

    @property
    def is_running(self) -> bool:
        """Whether work is being done: of pods that train together all are needed, of parts each works alone."""
        return len(self.live_pods) >= (1 if self.spec.parts else self.spec.num_nodes)


def is_complete(job: Mapping[str, Any]) -> bool:
    """Tell whether a Job has ended well."""
    return _has(job, "Complete")


def has_failed(job: Mapping[str, Any]) -> bool:
    """Tell whether a Job has failed for good."""
    return _has(job, "Failed")


def is_finished(job: Mapping[str, Any]) -> bool:
    """Tell whether a Job is at its end."""
    return is_complete(job) or has_failed(job)


def _has(job: Mapping[str, Any], kind: str) -> bool:
    conditions = job.get("status", {}).get("conditions") or []
    return any(condition["type"] == kind and condition["status"] == "True" for condition in conditions)


def indexes(text: str) -> list[int]:
    """Return the numbers of Kubernetes' short form, e.g. "1,3-5"."""
    found: list[int] = []
    for part in text.split(","):
        first, _, last = part.partition("-")
        found += range(int(first), int(last or first) + 1)
    return found


def trimmed(pod: Mapping[str, Any]) -> Object:
    """Return of a pod what is looked at: hundreds of them are kept."""
    kept = ("name", "labels", "creationTimestamp", "deletionTimestamp")
    metadata = {key: value for key, value in pod["metadata"].items() if key in kept}
    containers = [{key: container.get(key) for key in ("image", "resources")} for container in pod["spec"]["containers"]]
    spec = {"nodeName": pod["spec"].get("nodeName", ""), "containers": containers}
    return {"metadata": metadata, "spec": spec, "status": pod["status"]}


def has_started(pod: Mapping[str, Any]) -> bool:
    """Tell whether a pod's container has a log."""
    states = [status["state"] for status in pod["status"].get("containerStatuses", [])]
    return any("running" in state or "terminated" in state for state in states)
