"""Explains why a Job has no running pod yet: resources, image, volume, quota, queue, or a pod that does not end."""

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
UNPLACED = ("FailedScheduling", "NotTriggerScaleUp")  # outdated once the pod has a node
EXPLAINING = (  # reasons of events that explain why a pod or Job waits
    *UNPLACED, "FailedCreate", "FailedMount", "FailedAttachVolume", "FailedCreatePodSandBox", "Pending",
    "QuotaReserved", "FailedBinding", "ProvisioningFailed",
)  # fmt: skip


def waiting(job: Object, pods: Iterable[Object], events: Mapping[str, Sequence[Object]]) -> Verdict | None:
    """Return why a Job has no running pod yet; None if there is nothing to explain.

    Of the events of a pod only the last one counts: a volume that could not be mounted at first does not matter once
    the image is being pulled.

    Args:
        job: A Job that is not finished.
        pods: Its pods.
        events: Events by the name of the object that they are about.
    """
    leaving = [pod for pod in pods if pod.get("metadata", {}).get("deletionTimestamp")]
    pods = [pod for pod in pods if pod not in leaving]
    pending = [pod for pod in pods if phase(pod) == "Pending"]
    for pod in pending:
        if verdict := _pod_pending(pod, events.get(name_of(pod), [])):
            return verdict
    if job.get("spec", {}).get("suspend"):
        return _queue(job, events)
    if not pending and not any(phase(pod) == "Running" for pod in pods):
        held = [pod for pod in leaving if pod["metadata"]["deletionTimestamp"] != GONE and not objects.terminated(pod)]
        return _leaving(held[0]) if held else _no_pod(events.get(name_of(job), []))
    return None


def _leaving(pod: Object) -> Verdict:
    """Return the verdict on a pod that is being deleted.

    Its successor starts only when it has ended, which a lost node cannot confirm.
    """
    lost = pod.get("status", {}).get("message", "") if pod.get("status", {}).get("reason") == "NodeLost" else ""
    evidence = disruption(pod) or short(lost) or "it is being deleted"
    what = f"waiting for the end of pod {name_of(pod)}"
    return Verdict("leaving", what, node_of(pod), evidence, "if its node is lost, delete the node")


def _pod_pending(pod: Object, events: Sequence[Object]) -> Verdict | None:
    scheduled = condition(pod, "PodScheduled")
    if scheduled and scheduled.get("status") == "False":
        if scheduled.get("reason") == "SchedulingGated":
            return Verdict("queue", "held back by a scheduling gate", "", short(scheduled.get("message", "")))
        return _unscheduled(pod, scheduled.get("message", ""))
    for status in objects.container_statuses(pod):
        if verdict := _container_pending(pod, status):
            return verdict
    event = objects.latest(events)
    if event and event.get("reason") in EXPLAINING and not (node_of(pod) and event["reason"] in UNPLACED):
        kind = "volume" if "olume" in event.get("message", "") else "start"
        return Verdict(kind, f"{event['reason']}", node_of(pod), _message(event))
    return None


def _container_pending(pod: Object, status: Object) -> Verdict | None:
    state = status.get("state", {}).get("waiting", {})
    reason, message = state.get("reason", ""), state.get("message", "")
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
        advice = "create it, or correct `volumes` in kubernetes.yml"
        return Verdict("volume", "the volume claim is not bound", "", short(message), advice)
    reasons = re.search(r"nodes are available: (.*?)(?:\. (?:no new claims|preemption)|$)", message)
    requested = ", ".join(f"{value} {name}" for name, value in objects.requests(pod).items())
    why = (reasons[1] if reasons else short(message)).strip(". ")
    advice = remedy(why, PLACING, PLACING_ELSE)
    return Verdict("unschedulable", f"no node fits: {why}", "", f"requested {requested}", advice)


def _no_pod(events: Sequence[Object]) -> Verdict | None:
    event = _last([event for event in events if event.get("reason") == "FailedCreate"])
    return None if event is None else refused(event.get("message", ""))


def _queue(job: Object, events: Mapping[str, Sequence[Object]]) -> Verdict:
    queue = job.get("metadata", {}).get("labels", {}).get(objects.QUEUE_LABEL, "")
    if not queue:
        return Verdict("queue", "is suspended", "", "it is in no queue", "resume the Job, or ask who suspended it")
    what = f"waiting in queue {queue!r}"
    if event := _last([event for key, found in events.items() if name_of(job) in key for event in found]):
        return Verdict("queue", what, "", _message(event))
    advice = f"check that the namespace has a LocalQueue {queue!r}: kubectl get localqueues,workloads"
    return Verdict("queue", what, "", "Kueue has reported nothing", advice)


def _last(events: Iterable[Object]) -> Object | None:
    return objects.latest(event for event in events if event.get("reason") in EXPLAINING)


def _message(event: Object) -> str:
    return short(str(event.get("message", "")))
