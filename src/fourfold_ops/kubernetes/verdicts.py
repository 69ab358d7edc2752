"""Why a step waits or has failed, in one line: what, where, evidence, remedy. Pure: Jobs, Pods and Events are plain JSON."""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from fourfold_ops.failures import EXIT_CONFIGURATION, EXIT_TERMINATED, EXIT_TRY_AGAIN, EXIT_USAGE
from fourfold_ops.kubernetes.progress import Progress

Object = Mapping[str, Any]
OOM, SIGKILL = "OOMKilled", 137
STOPPED = (EXIT_TRY_AGAIN, EXIT_TERMINATED)  # by SIGTERM, after saving or at once
LONGEST = 400  # characters of evidence
GONE = "gone"  # in place of the time of deletion: the pod is no more
IMAGE = (
    "ErrImagePull",
    "ImagePullBackOff",
    "ErrImageNeverPull",
    "InvalidImageName",
    "ImageInspectError",
    "RegistryUnavailable",
)
START = ("CreateContainerConfigError", "CreateContainerError", "RunContainerError", "PreCreateHookError")
SETTLED = (  # events that say why a pod or Job waits; anything else is not an explanation
    "FailedCreate", "FailedMount", "FailedAttachVolume", "FailedScheduling", "FailedCreatePodSandBox", "Pending",
    "QuotaReserved", "Suspended", "FailedBinding", "ProvisioningFailed", "NotTriggerScaleUp",
)  # fmt: skip
DISRUPTIONS = {
    "PreemptionByScheduler": "pre-empted by a pod of higher priority",
    "DeletionByTaintManager": "evicted: its node was tainted or lost",
    "EvictionByEvictionAPI": "evicted: its node is being drained",
    "DeletionByPodGC": "lost with its node",
    "TerminationByKubelet": "stopped by its node",
}


@dataclass(frozen=True)
class Verdict:
    """One line for the user. `kind` is for machines: the board, the tests, the decision whether to wait."""

    kind: str
    what: str
    where: str = ""
    evidence: str = ""
    remedy: str = ""

    def line(self, title: str) -> str:
        """Return "TITLE: what on WHERE; evidence; remedy"."""
        what = f"{self.what} on {self.where}" if self.where else self.what
        return f"{title}: " + "; ".join(part.strip(" .;") for part in (what, self.evidence, self.remedy) if part) + "."

    @property
    def waits_for_place(self) -> bool:
        """Whether time may mend it by itself: another pod ends, a node is added, a quota is raised."""
        return self.kind in ("unschedulable", "quota", "queue", "leaving")


# --- waiting ---


def waiting(job: Object, pods: Iterable[Object], events: Mapping[str, Sequence[Object]]) -> Verdict | None:
    """Return why a Job has no running pod yet; None while there is nothing to explain.

    `events` are by the name of the object that they are about.
    """
    leaving = [pod for pod in pods if pod.get("metadata", {}).get("deletionTimestamp")]
    pods = [pod for pod in pods if pod not in leaving]
    pending = [pod for pod in pods if pod.get("status", {}).get("phase") == "Pending"]
    for pod in pending:
        if verdict := _pod_waits(pod, events.get(_name(pod), [])):
            return verdict
    if job.get("spec", {}).get("suspend"):
        return _queue(job, events)
    if not pending and not any(pod.get("status", {}).get("phase") == "Running" for pod in pods):
        if held := [pod for pod in leaving if pod["metadata"]["deletionTimestamp"] != GONE and not terminated(pod)]:
            return _leaving(held[0])
        return _no_pod(job, events.get(_name(job), []))
    return None


def _leaving(pod: Object) -> Verdict:
    """A successor starts only when a pod has really ended: on a node that is lost nobody can say so."""
    node = pod.get("spec", {}).get("nodeName", "")
    evidence = disruption(pod) or "it is being deleted"
    return Verdict("leaving", f"waits for the end of pod {_name(pod)}", node, evidence, "if its node is lost, delete the node")


def _pod_waits(pod: Object, events: Sequence[Object]) -> Verdict | None:
    scheduled = _condition(pod, "PodScheduled")
    node = pod.get("spec", {}).get("nodeName", "")
    if scheduled and scheduled.get("status") == "False":
        return _unscheduled(pod, scheduled.get("message", ""))
    for status in pod.get("status", {}).get("containerStatuses", []):
        reason = status.get("state", {}).get("waiting", {}).get("reason", "")
        message = status["state"]["waiting"].get("message", "") if reason else ""
        if reason in IMAGE:
            return Verdict(
                "image",
                f"image {status.get('image') or _image(pod)} cannot be pulled ({reason})",
                node,
                _root(message),
                "correct `image` in kubernetes.yml, push it, or name pull_secrets",
            )
        if reason in START:
            return Verdict("start", f"the container cannot start ({reason})", node, _short(message), _start_remedy(message))
    if event := _last(events):
        return Verdict(
            "volume" if "olume" in event.get("message", "") else "start", f"{event['reason']}", node, _message(event)
        )
    return None


def _unscheduled(pod: Object, message: str) -> Verdict:
    if "persistentvolumeclaim" in message.lower():
        return Verdict(
            "volume", "the volume claim is not bound", "", _short(message), "create it, or correct `volumes` in kubernetes.yml"
        )
    reasons = re.search(r"nodes are available: (.*?)(?:\. (?:no new claims|preemption)|$)", message)
    asked = ", ".join(f"{value} {name}" for name, value in _requests(pod).items())
    return Verdict(
        "unschedulable",
        f"no node has room: {(reasons[1] if reasons else _short(message)).strip('. ')}",
        "",
        f"asked for {asked}",
        "ask for less in kubernetes.yml, or add a node",
    )


def _no_pod(job: Object, events: Sequence[Object]) -> Verdict | None:
    event = _last([event for event in events if event.get("reason") == "FailedCreate"])
    return None if event is None else refused(event.get("message", ""))


def refused(message: str) -> Verdict:
    """Return why the server lets no pod (or no Job) be made, from its own words."""
    lower = message.lower()
    if "exceeded quota" in lower:
        found = re.search(r"exceeded quota: ([^,]+), (.*)", message)
        return Verdict(
            "quota",
            f"quota {found[1] if found else ''} refuses the pod".replace("  ", " "),
            "",
            _short(found[2] if found else message),
            "wait for other work to end, ask for less, or have the quota raised",
        )
    if "violates podsecurity" in lower:
        return Verdict(
            "refused", "Pod Security refuses the pod", "", _short(message), "use claims, not hostPath, in kubernetes.yml"
        )
    if "serviceaccount" in lower:
        return Verdict("refused", "the service account is missing", "", _short(message), "create it, or correct kubernetes.yml")
    if "priorityclass" in lower.replace(" ", ""):
        return Verdict("refused", "the priority class is missing", "", _short(message), "create it, or correct kubernetes.yml")
    return Verdict("refused", "the cluster refuses the pod", "", _short(message), "correct kubernetes.yml")


def forbidden(verb: str, resource: str, namespace: str, message: str) -> Verdict:
    """Return what a credential may not do."""
    if "exceeded quota" in message:
        return refused(message)
    who = re.search(r'User "([^"]+)"', message)
    return Verdict(
        "forbidden",
        f"not allowed to {verb} {resource} in namespace {namespace!r}",
        "",
        f"as {who[1]}" if who else _short(message),
        "bind the Role of k8s/base to it, or use another context",
    )


def _queue(job: Object, events: Mapping[str, Sequence[Object]]) -> Verdict:
    queue = job.get("metadata", {}).get("labels", {}).get("kueue.x-k8s.io/queue-name", "")
    name = _name(job)
    about = [event for key, found in events.items() if name in key for event in found]
    event = _last(about)
    evidence = _message(event) if event else "Kueue has not admitted it yet"
    return Verdict("queue", f"waits in queue {queue!r}" if queue else "is suspended", "", evidence)


def _start_remedy(message: str) -> str:
    if "secret" in message.lower():
        return "create the secret, or correct `secrets` in kubernetes.yml"
    return "correct kubernetes.yml"


# --- failed ---


def failure(job: Object, pods: Iterable[Object], progress: Progress, again: str) -> Verdict:
    """Return why a Job has failed. `again` is the command that goes on from what is there."""
    failed = _condition(job, "Failed") or _condition(job, "FailureTarget") or {}
    reason = failed.get("reason", "")
    if reason == "DeadlineExceeded":
        seconds = job.get("spec", {}).get("activeDeadlineSeconds")
        remedy = f"raise deadline_seconds in kubernetes.yml; go on with: {again}"
        return Verdict("deadline", f"over its deadline of {seconds} s", "", _how_far(progress), remedy)
    pod = telling_pod(pods)
    if pod is None:
        evidence = f"{failed.get('message', '')}{f' ({reason})' if reason else ''}"
        return Verdict("failed", "failed, and its pods are gone", "", _short(evidence), f"run again: {again}")
    verdict = pod_failure(pod, progress, again)
    parts = job.get("status", {}).get("failedIndexes", "")
    if parts and job.get("spec", {}).get("backoffLimitPerIndex") is not None:
        return Verdict(
            verdict.kind,
            f"parts {parts} failed: {verdict.what}",
            verdict.where,
            verdict.evidence,
            f"only those run again with: {again}",
        )
    return verdict


def pod_failure(pod: Object, progress: Progress, again: str) -> Verdict:
    """Return why one pod has failed."""
    node, ended = pod.get("spec", {}).get("nodeName", ""), terminated(pod)
    code, reason = ended.get("exitCode"), ended.get("reason", "")
    message = ended.get("message", "") or progress.line
    how_far = _how_far(progress)
    resume = f"resume with: {again}"
    if reason == OOM:
        limit = _requests(pod).get("memory", "?")
        at = f" at {how_far.partition('; ')[0]}" if progress.done is not None else ""
        rest = f"; last checkpoint {progress.checkpoint}" if progress.checkpoint is not None else ""
        return Verdict(
            "oom",
            f"OOMKilled (exit {code})",
            f"{node}{at}",
            f"limit {limit}{rest}",
            f"raise memory in kubernetes.yml; {resume}",
        )
    if disrupted := disruption(pod):
        return Verdict("disrupted", disrupted, node, how_far, resume)
    if pod.get("status", {}).get("reason") == "Evicted":
        return Verdict("evicted", "evicted", node, _short(pod["status"].get("message", "")), f"ask for what it uses; {resume}")
    if code in (EXIT_CONFIGURATION, EXIT_USAGE):
        return Verdict(
            "configuration",
            f"bad configuration (exit {code}, not retried)",
            node,
            _short(python_error(message)),
            "correct it and run again",
        )
    if code == SIGKILL:
        evidence = f"killed with SIGKILL (exit {code}): out of memory in a child process, or the grace period was over"
        return Verdict("killed", evidence, node, how_far, f"raise memory or grace_seconds in kubernetes.yml; {resume}")
    if code in STOPPED:
        return Verdict("terminated", f"stopped from outside with SIGTERM (exit {code})", node, how_far, resume)
    if code is None:
        return Verdict("failed", "failed without an exit code", node, _short(pod.get("status", {}).get("message", "")), resume)
    signal = f", signal {code - 128}" if code > 128 else ""
    evidence = "; ".join(part for part in (_short(python_error(message)), how_far) if part)
    return Verdict("error", f"failed (exit {code}{signal})", node, evidence, resume)


def telling_pod(pods: Iterable[Object]) -> Object | None:
    """Return the failed pod that says most: of those that failed last, the first one, since it took the others with it.

    Out of memory and bad configuration say more than a lost connection; a pre-empted pod says least.
    """
    failed = [pod for pod in pods if pod.get("status", {}).get("phase") == "Failed" or _bad(terminated(pod))]
    if not failed:
        return None
    newest = max(_ended(pod) for pod in failed)
    last = [pod for pod in failed if newest - _ended(pod) <= 60]

    def rank(pod: Object) -> tuple[int, float]:
        ended = terminated(pod)
        strong = ended.get("reason") == OOM or ended.get("exitCode") in (EXIT_CONFIGURATION, EXIT_USAGE)
        weak = bool(disruption(pod)) or ended.get("exitCode") in STOPPED
        return (0 if strong else 2 if weak else 1, _ended(pod))

    return min(last, key=rank)


def disruption(pod: Object) -> str:
    """Return in words who took the pod away; "" when nobody did."""
    condition = _condition(pod, "DisruptionTarget")
    if not condition or condition.get("status") != "True":
        return ""
    reason = condition.get("reason", "")
    return f"{DISRUPTIONS.get(reason, 'taken away')} ({reason})"


def terminated(pod: Object) -> dict[str, Any]:
    """Return how the pod's container ended: exitCode, reason, message; empty while it runs."""
    for status in pod.get("status", {}).get("containerStatuses", []):
        for state in (status.get("state", {}), status.get("lastState", {})):
            if "terminated" in state:
                return dict(state["terminated"])
    return {}


def python_error(text: str) -> str:
    """Return the line that names the error: ours ("Failed in …"), else the last "…Error: …", else the last line."""
    lines = [line.strip() for line in re.sub(r"\x1b\[[0-9;]*m", "", text).splitlines() if line.strip()]
    ours = [line for line in lines if line.startswith(("Failed in ", "Failed: ", "Error: "))]
    errors = [line for line in lines if re.match(r"^([\w.]+(Error|Exception|Interrupt)|[\w.]+\.[A-Z]\w+): ", line)]
    found = re.sub(r"^Failed in [^,:]+, node [^,:]+[,:] ", "", (ours or errors or lines or [""])[-1])  # the title says where
    return re.sub(r" \[details: [^\]]*\]$", "", found)


def _how_far(progress: Progress) -> str:
    if progress.done is None:
        return ""
    unit = progress.unit.removesuffix("s") or "step"
    checkpoint = f"; last checkpoint {progress.checkpoint}" if progress.checkpoint is not None else ""
    return f"{unit} {progress.done}{f' of {progress.total}' if progress.total else ''}{checkpoint}"


def _bad(ended: Mapping[str, Any]) -> bool:
    return ended.get("exitCode", 0) != 0


def _ended(pod: Object) -> float:
    at = terminated(pod).get("finishedAt") or pod.get("metadata", {}).get("creationTimestamp")
    return datetime.fromisoformat(at).timestamp() if at else 0.0


def _condition(found: Object, kind: str) -> dict[str, Any] | None:
    conditions = found.get("status", {}).get("conditions") or []
    return next((dict(c) for c in conditions if c.get("type") == kind and c.get("status") in ("True", "False")), None)


def _requests(pod: Object) -> dict[str, str]:
    containers = pod.get("spec", {}).get("containers", [{}])
    return dict(containers[0].get("resources", {}).get("limits", {}))


def _image(pod: Object) -> str:
    return str(pod.get("spec", {}).get("containers", [{}])[0].get("image", ""))


def _name(found: Object) -> str:
    return str(found.get("metadata", {}).get("name", ""))


def _last(events: Iterable[Object]) -> Object | None:
    telling = [event for event in events if event.get("reason") in SETTLED]
    return max(telling, key=lambda e: str(e.get("lastTimestamp") or e.get("eventTime") or ""), default=None)


def _message(event: Object) -> str:
    return _short(str(event.get("message", "")))


def _root(text: str) -> str:
    """Return the end of a message in which every layer has put its own words before those of the one below."""
    flat = " ".join(text.split())
    return flat if len(flat) <= LONGEST // 4 else ": ".join(flat.split(": ")[-3:])


def _short(text: str) -> str:
    flat = " ".join(text.split())
    return flat if len(flat) <= LONGEST else flat[: LONGEST - 1] + "…"
