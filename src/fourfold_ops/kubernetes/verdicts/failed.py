"""How a pod or a Job ended: out of memory, an error of the code, a bad configuration, a node that went, a deadline."""

from collections.abc import Iterable, Mapping
from typing import Any

from fourfold_ops.errors import BAD_CONFIGURATION, STOPPED
from fourfold_ops.kubernetes.objects import Object, condition, ended_at, is_true, limits, node_of, phase, terminated
from fourfold_ops.kubernetes.progress import Progress
from fourfold_ops.kubernetes.verdicts.error_line import python_error
from fourfold_ops.kubernetes.verdicts.remedies import EVICTING, FAILING, STARTING, STARTING_ELSE, remedy
from fourfold_ops.kubernetes.verdicts.verdict import Verdict, innermost, short

LAST_SIGNAL = 64
OOM, SIGKILL = "OOMKilled", 137
SAME_FALL_SECONDS = 60  # pods that fail within this time fell together
NOT_STARTED = ("StartError", "ContainerCannotRun")
COMMAND_NOT_RUN = {126: "its command is not executable", 127: "its command is not in the image"}  # as shells put it
DISRUPTIONS = {
    "PreemptionByScheduler": "pre-empted by a pod of higher priority",
    "DeletionByTaintManager": "evicted: its node was tainted or lost",
    "EvictionByEvictionAPI": "evicted: its node is being drained",
    "DeletionByPodGC": "lost with its node",
    "TerminationByKubelet": "stopped by its node",
}


def failure(job: Object, pods: Iterable[Object], progress: Progress, again: str) -> Verdict:
    """Return why a Job has failed. `again` is the command that goes on from what is there."""
    failed = condition(job, "Failed") or condition(job, "FailureTarget") or {}
    reason = failed.get("reason", "")
    if reason == "DeadlineExceeded":
        seconds = job.get("spec", {}).get("activeDeadlineSeconds")
        mend = f"raise deadline_seconds in kubernetes.yml; go on with: {again}"
        return Verdict("deadline", f"over its deadline of {seconds} s", "", _how_far(progress), mend)
    pod = telling_pod(pods)
    if pod is None:
        evidence = f"{failed.get('message', '')}{f' ({reason})' if reason else ''}"
        return Verdict("failed", "failed, and its pods are gone", "", short(evidence), f"run again: {again}")
    verdict = pod_failure(pod, progress, again)
    parts = job.get("status", {}).get("failedIndexes", "")
    if parts and job.get("spec", {}).get("backoffLimitPerIndex") is not None:
        what = f"parts {parts} failed: {verdict.what}"
        return Verdict(verdict.kind, what, verdict.where, verdict.evidence, f"only those run again with: {again}")
    return verdict


def pod_failure(pod: Object, progress: Progress, again: str) -> Verdict:
    """Return why one pod has failed."""
    resume = f"resume with: {again}"
    if terminated(pod).get("reason") == OOM:
        return _out_of_memory(pod, progress, resume)
    return _taken_away(pod, progress, resume) or _not_run(pod, resume) or _ended(pod, progress, resume)


def _taken_away(pod: Object, progress: Progress, resume: str) -> Verdict | None:
    """Return who ended it from outside its container, if somebody did; what the node said of it is the evidence."""
    status, how_far = pod.get("status", {}), _how_far(progress)
    said = short(status.get("message", ""))
    disrupted = disruption(pod)
    if status.get("reason") == "Evicted":
        kind = "disrupted" if disrupted else "evicted"
        mend = remedy(said, EVICTING, "ask for what it uses")
        evidence = "; ".join(part for part in (said.rstrip(". "), how_far) if part)
        return Verdict(kind, "evicted", node_of(pod), evidence, f"{mend}; {resume}")
    if disrupted:
        return Verdict("disrupted", disrupted, node_of(pod), how_far, resume)
    if terminated(pod).get("reason") == "ContainerStatusUnknown":
        return Verdict("lost", "its container was lost (ContainerStatusUnknown)", node_of(pod), how_far, resume)
    return None


def _not_run(pod: Object, resume: str) -> Verdict | None:
    """Return why its process never ran: the node would not have it, or there is no such program."""
    ended, status = terminated(pod), pod.get("status", {})
    if ended.get("reason") in NOT_STARTED:
        message = ended.get("message", "")
        what = f"the container cannot start ({ended['reason']})"
        return Verdict("start", what, node_of(pod), innermost(message), remedy(message, STARTING, STARTING_ELSE))
    if ended.get("exitCode") is None:
        reason = status.get("reason", "")
        what = f"refused by its node ({reason})" if reason else "failed without an exit code"
        return Verdict("failed", what, node_of(pod), short(status.get("message", "")), resume)
    return None


def _ended(pod: Object, progress: Progress, resume: str) -> Verdict:
    """Return how its process ended."""
    node, ended, how_far = node_of(pod), terminated(pod), _how_far(progress)
    code = int(ended["exitCode"])
    said = short(python_error(ended.get("message", "") or progress.line))
    if code in BAD_CONFIGURATION:
        what = f"bad configuration (exit {code}, not retried)"
        return Verdict("configuration", what, node, said, "correct it and run again")
    if code == SIGKILL:
        what = f"killed with SIGKILL (exit {code}): out of memory in a child process, or the grace period was over"
        return Verdict("killed", what, node, how_far, f"raise memory or grace_seconds in kubernetes.yml; {resume}")
    if code in STOPPED:
        return Verdict("terminated", f"stopped from outside with SIGTERM (exit {code})", node, how_far, resume)
    mend = remedy(said, FAILING)
    if code in COMMAND_NOT_RUN and progress.done is None:
        said = "; ".join(part for part in (COMMAND_NOT_RUN[code], said) if part)
        mend = "correct `command` in kubernetes.yml, or the image"
    signal = f", signal {code - 128}" if 128 < code <= 128 + LAST_SIGNAL else ""
    evidence = "; ".join(part for part in (said or "it wrote nothing", how_far) if part)
    return Verdict("error", f"failed (exit {code}{signal})", node, evidence, "; ".join(p for p in (mend, resume) if p))


def _out_of_memory(pod: Object, progress: Progress, resume: str) -> Verdict:
    at = f" at {_how_far(progress).partition('; ')[0]}" if progress.done is not None else ""
    rest = f"; last checkpoint {progress.checkpoint}" if progress.checkpoint is not None else ""
    return Verdict(
        "oom",
        f"OOMKilled (exit {terminated(pod).get('exitCode')})",
        f"{node_of(pod)}{at}",
        f"limit {limits(pod).get('memory', '?')}{rest}",
        f"raise memory in kubernetes.yml; {resume}",
    )


def telling_pod(pods: Iterable[Object]) -> Object | None:
    """Return the failed pod that says most: of those that failed last, the first one, since it took the others with it.

    Out of memory and bad configuration say more than a lost connection; a pre-empted pod says least.
    """
    failed = [pod for pod in pods if phase(pod) == "Failed" or _bad(terminated(pod))]
    if not failed:
        return None
    newest = max(ended_at(pod) for pod in failed)
    last = [pod for pod in failed if newest - ended_at(pod) <= SAME_FALL_SECONDS]

    def rank(pod: Object) -> tuple[int, float]:
        ended = terminated(pod)
        strong = ended.get("reason") == OOM or ended.get("exitCode") in BAD_CONFIGURATION
        weak = bool(disruption(pod)) or ended.get("exitCode") in STOPPED
        return (0 if strong else 2 if weak else 1, ended_at(pod))

    return min(last, key=rank)


def disruption(pod: Object) -> str:
    """Return in words who took the pod away; "" when nobody did."""
    if not is_true(pod, "DisruptionTarget"):
        return ""
    reason = (condition(pod, "DisruptionTarget") or {}).get("reason", "")
    return f"{DISRUPTIONS.get(reason, 'taken away')} ({reason})"


def _how_far(progress: Progress) -> str:
    if progress.done is None:
        return ""
    unit = progress.unit.removesuffix("s") or "step"
    checkpoint = f"; last checkpoint {progress.checkpoint}" if progress.checkpoint is not None else ""
    return f"{unit} {progress.done}{f' of {progress.total}' if progress.total else ''}{checkpoint}"


def _bad(ended: Mapping[str, Any]) -> bool:
    return ended.get("exitCode", 0) != 0
