"""Why a Job has no running pod yet: no room, no image, no volume, a quota, a queue, a predecessor that does not end."""

import re
from collections.abc import Iterable, Mapping, Sequence

from fourfold_ops.kubernetes.cluster import objects
from fourfold_ops.kubernetes.cluster.objects import GONE, Object, condition, name_of, node_of, phase
from fourfold_ops.kubernetes.verdicts.failed import disruption
from fourfold_ops.kubernetes.verdicts.refused import refused
from fourfold_ops.kubernetes.verdicts.remedies import (
    PLACING,
    PLACING_ELSE,
    PULLING,
    PULLING_ELSE,
    STARTING,
    STARTING_ELSE,
    remedy,
)
from fourfold_ops.kubernetes.verdicts.verdict import Verdict, innermost, short

IMAGE = (
    "ErrImagePull",
    "ImagePullBackOff",
    "ErrImageNeverPull",
    "InvalidImageName",
    "ImageInspectError",
    "RegistryUnavailable",
)
START = ("CreateContainerConfigError", "CreateContainerError", "RunContainerError", "PreCreateHookError")
UNPLACED = ("FailedScheduling", "NotTriggerScaleUp")  # once a pod has a node, what the scheduler had said is history
TELLING = (  # events that say why a pod or Job waits; anything else is not an explanation
    *UNPLACED, "FailedCreate", "FailedMount", "FailedAttachVolume", "FailedCreatePodSandBox", "Pending",
    "QuotaReserved", "FailedBinding", "ProvisioningFailed",
)  # fmt: skip


def waiting(job: Object, pods: Iterable[Object], events: Mapping[str, Sequence[Object]]) -> Verdict | None:
    """Return why a Job has no running pod yet; None while there is nothing to explain.

    `events` are by the name of the object that they are about. Of a pod's, only the last one counts: a volume that could not be
    mounted at first is no reason to wait once the image is being pulled.
    """
    leaving = [pod for pod in pods if pod.get("metadata", {}).get("deletionTimestamp")]
    pods = [pod for pod in pods if pod not in leaving]
    pending = [pod for pod in pods if phase(pod) == "Pending"]
    for pod in pending:
        if verdict := _pod_waits(pod, events.get(name_of(pod), [])):
            return verdict
    if job.get("spec", {}).get("suspend"):
        return _queue(job, events)
    if not pending and not any(phase(pod) == "Running" for pod in pods):
        held = [pod for pod in leaving if pod["metadata"]["deletionTimestamp"] != GONE and not objects.terminated(pod)]
        return _leaving(held[0]) if held else _no_pod(events.get(name_of(job), []))
    return None


def _leaving(pod: Object) -> Verdict:
    """A successor starts only when a pod has really ended: on a node that is lost nobody can say so."""
    lost = pod.get("status", {}).get("message", "") if pod.get("status", {}).get("reason") == "NodeLost" else ""
    evidence = disruption(pod) or short(lost) or "it is being deleted"
    what = f"waits for the end of pod {name_of(pod)}"
    return Verdict("leaving", what, node_of(pod), evidence, "if its node is lost, delete the node")


def _pod_waits(pod: Object, events: Sequence[Object]) -> Verdict | None:
    scheduled = condition(pod, "PodScheduled")
    if scheduled and scheduled.get("status") == "False":
        if scheduled.get("reason") == "SchedulingGated":
            return Verdict("queue", "held back by a scheduling gate", "", short(scheduled.get("message", "")))
        return _unscheduled(pod, scheduled.get("message", ""))
    for status in objects.container_statuses(pod):
        if verdict := _container_waits(pod, status):
            return verdict
    event = objects.latest(events)
    if event and event.get("reason") in TELLING and not (node_of(pod) and event["reason"] in UNPLACED):
        kind = "volume" if "olume" in event.get("message", "") else "start"
        return Verdict(kind, f"{event['reason']}", node_of(pod), _message(event))
    return None


def _container_waits(pod: Object, status: Object) -> Verdict | None:
    held = status.get("state", {}).get("waiting", {})
    reason, message = held.get("reason", ""), held.get("message", "")
    if reason in IMAGE:
        return Verdict(
            "image",
            f"image {status.get('image') or objects.image(pod)} cannot be pulled ({reason})",
            node_of(pod),
            innermost(message),
            remedy(message, PULLING, PULLING_ELSE),
        )
    if reason in START:
        what = f"the container cannot start ({reason})"
        return Verdict("start", what, node_of(pod), innermost(message), remedy(message, STARTING, STARTING_ELSE))
    return None


def _unscheduled(pod: Object, message: str) -> Verdict:
    if "persistentvolumeclaim" in message.lower():
        mend = "create it, or correct `volumes` in kubernetes.yml"
        return Verdict("volume", "the volume claim is not bound", "", short(message), mend)
    reasons = re.search(r"nodes are available: (.*?)(?:\. (?:no new claims|preemption)|$)", message)
    asked = ", ".join(f"{value} {name}" for name, value in objects.requests(pod).items())
    why = (reasons[1] if reasons else short(message)).strip(". ")
    mend = remedy(why, PLACING, PLACING_ELSE)
    return Verdict("unschedulable", f"no node has room: {why}", "", f"asked for {asked}", mend)


def _no_pod(events: Sequence[Object]) -> Verdict | None:
    event = _last([event for event in events if event.get("reason") == "FailedCreate"])
    return None if event is None else refused(event.get("message", ""))


def _queue(job: Object, events: Mapping[str, Sequence[Object]]) -> Verdict:
    queue = job.get("metadata", {}).get("labels", {}).get(objects.QUEUE_LABEL, "")
    if not queue:
        return Verdict("queue", "is suspended", "", "no queue holds it", "whoever suspended it must let it go on")
    what = f"waits in queue {queue!r}"
    if event := _last([event for key, found in events.items() if name_of(job) in key for event in found]):
        return Verdict("queue", what, "", _message(event))
    mend = f"see whether the namespace has a LocalQueue {queue!r}: kubectl get localqueues,workloads"
    return Verdict("queue", what, "", "Kueue says nothing of it", mend)


def _last(events: Iterable[Object]) -> Object | None:
    return objects.latest(event for event in events if event.get("reason") in TELLING)


def _message(event: Object) -> str:
    return short(str(event.get("message", "")))
