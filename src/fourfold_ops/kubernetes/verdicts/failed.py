"""Explains how a pod or a Job ended: out of memory, an error, a bad configuration, a lost node, a deadline."""

from collections.abc import Iterable, Mapping
from typing import Any

from fourfold_ops.errors import BAD_CONFIGURATION, STOPPED
from fourfold_ops.kubernetes.cluster.objects import Object, condition, ended_at, is_true, limits, node_of, phase, terminated
from fourfold_ops.kubernetes.verdicts.error_line import error_line
from fourfold_ops.kubernetes.verdicts.progress import Progress
from fourfold_ops.kubernetes.verdicts.remedies import EVICTING, FAILING, STARTING, STARTING_ELSE, remedy
from fourfold_ops.kubernetes.verdicts.verdict import Verdict, innermost, short

LAST_SIGNAL = 64
OOM, SIGKILL = "OOMKilled", 137
SAME_FAILURE_SECONDS = 60  # pods that fail within this time have one cause
NOT_STARTED = ("StartError", "ContainerCannotRun")
COMMAND_NOT_RUN = {126: "its command is not executable", 127: "its command is not in the image"}  # exit codes of shells
DISRUPTIONS = {
    "PreemptionByScheduler": "preempted by a pod of higher priority",
    "DeletionByTaintManager": "evicted: its node was tainted or lost",
    "EvictionByEvictionAPI": "evicted: its node is being drained",
    "DeletionByPodGC": "deleted with its lost node",
    "TerminationByKubelet": "stopped by its node",
}


def failure(job: Object, pods: Iterable[Object], progress: Progress, again: str) -> Verdict:
    """Return why a Job has failed.

    Args:
        job: The failed Job.
        pods: Its pods, as far as they still exist.
        progress: The progress of the step.
        again: The command that resumes the run.
    """
    failed = condition(job, "Failed") or condition(job, "FailureTarget") or {}
    reason = failed.get("reason", "")
    if reason == "DeadlineExceeded":
        seconds = job.get("spec", {}).get("activeDeadlineSeconds")
        advice = f"raise deadline_seconds in kubernetes.yml; resume with: {again}"
        return Verdict("deadline", f"exceeded its deadline of {seconds} s", "", _progress_text(progress), advice)
    pod = root_cause_pod(pods)
    if pod is None:
        evidence = f"{failed.get('message', '')}{f' ({reason})' if reason else ''}"
        return Verdict("failed", "failed, and its pods no longer exist", "", short(evidence), f"run again: {again}")
    verdict = pod_failure(pod, progress, again)
    parts = job.get("status", {}).get("failedIndexes", "")
    if parts and job.get("spec", {}).get("backoffLimitPerIndex") is not None:
        what = f"parts {parts} failed: {verdict.what}"
        return Verdict(verdict.kind, what, verdict.where, verdict.evidence, f"only these run again with: {again}")
    return verdict


def pod_failure(pod: Object, progress: Progress, again: str) -> Verdict:
    """Return why a pod has failed."""
    resume = f"resume with: {again}"
    if terminated(pod).get("reason") == OOM:
        return _out_of_memory(pod, progress, resume)
    return _disrupted(pod, progress, resume) or _not_started(pod, resume) or _exited(pod, progress, resume)


def _disrupted(pod: Object, progress: Progress, resume: str) -> Verdict | None:
    """Return the verdict if the pod was ended from outside; the message of the node is the evidence."""
    status, reached = pod.get("status", {}), _progress_text(progress)
    message = short(status.get("message", ""))
    disrupted = disruption(pod)
    if status.get("reason") == "Evicted":
        kind = "disrupted" if disrupted else "evicted"
        advice = remedy(message, EVICTING, "request what it uses")
        evidence = "; ".join(part for part in (message.rstrip(". "), reached) if part)
        return Verdict(kind, "evicted", node_of(pod), evidence, f"{advice}; {resume}")
    if disrupted:
        return Verdict("disrupted", disrupted, node_of(pod), reached, resume)
    if terminated(pod).get("reason") == "ContainerStatusUnknown":
        return Verdict("lost", "the node lost its container (ContainerStatusUnknown)", node_of(pod), reached, resume)
    return None


def _not_started(pod: Object, resume: str) -> Verdict | None:
    """Return the verdict if its process never ran: the node rejected the pod, or the program does not exist."""
    ended, status = terminated(pod), pod.get("status", {})
    if ended.get("reason") in NOT_STARTED:
        message = ended.get("message", "")
        what = f"the container cannot start ({ended['reason']})"
        return Verdict("start", what, node_of(pod), innermost(message), remedy(message, STARTING, STARTING_ELSE))
    if ended.get("exitCode") is None:
        reason = status.get("reason", "")
        what = f"rejected by its node ({reason})" if reason else "failed without an exit code"
        return Verdict("failed", what, node_of(pod), short(status.get("message", "")), resume)
    return None


def _exited(pod: Object, progress: Progress, resume: str) -> Verdict:
    """Return the verdict on the exit code of its process."""
    node, ended, reached = node_of(pod), terminated(pod), _progress_text(progress)
    code = int(ended["exitCode"])
    message = short(error_line(ended.get("message", "") or progress.line))
    if code in BAD_CONFIGURATION:
        what = f"bad configuration (exit {code}, not retried)"
        return Verdict("configuration", what, node, message, "correct it and rerun")
    if code == SIGKILL:
        what = f"killed with SIGKILL (exit {code}): out of memory in a child process, or the grace period ended"
        return Verdict("killed", what, node, reached, f"raise memory or grace_seconds in kubernetes.yml; {resume}")
    if code in STOPPED:
        return Verdict("terminated", f"stopped from outside with SIGTERM (exit {code})", node, reached, resume)
    advice = remedy(message, FAILING)
    if code in COMMAND_NOT_RUN and progress.done is None:
        message = "; ".join(part for part in (COMMAND_NOT_RUN[code], message) if part)
        advice = "correct `command` in kubernetes.yml, or the image"
    signal = f", signal {code - 128}" if 128 < code <= 128 + LAST_SIGNAL else ""
    evidence = "; ".join(part for part in (message or "no output", reached) if part)
    return Verdict("error", f"failed (exit {code}{signal})", node, evidence, "; ".join(p for p in (advice, resume) if p))


def _out_of_memory(pod: Object, progress: Progress, resume: str) -> Verdict:
    at = f" at {_progress_text(progress).partition('; ')[0]}" if progress.done is not None else ""
    rest = f"; last checkpoint {progress.checkpoint}" if progress.checkpoint is not None else ""
    return Verdict(
        "oom",
        f"OOMKilled (exit {terminated(pod).get('exitCode')})",
        f"{node_of(pod)}{at}",
        f"limit {limits(pod).get('memory', '?')}{rest}",
        f"raise memory in kubernetes.yml; {resume}",
    )


def root_cause_pod(pods: Iterable[Object]) -> Object | None:
    """Return the failed pod that is the likely cause: the first one of the most recent failure; None if no pod has failed.

    Out of memory and bad configuration come before other errors, which are often a lost connection to the pod that
    failed first. Preempted and stopped pods come last.
    """
    failed = [pod for pod in pods if phase(pod) == "Failed" or _has_error(terminated(pod))]
    if not failed:
        return None
    newest = max(ended_at(pod) for pod in failed)
    last = [pod for pod in failed if newest - ended_at(pod) <= SAME_FAILURE_SECONDS]

    def rank(pod: Object) -> tuple[int, float]:
        ended = terminated(pod)
        strong = ended.get("reason") == OOM or ended.get("exitCode") in BAD_CONFIGURATION
        weak = bool(disruption(pod)) or ended.get("exitCode") in STOPPED
        return (0 if strong else 2 if weak else 1, ended_at(pod))

    return min(last, key=rank)


def disruption(pod: Object) -> str:
    """Return what has disrupted a pod (preemption, eviction, a lost node) as text; "" if nothing has."""
    if not is_true(pod, "DisruptionTarget"):
        return ""
    reason = (condition(pod, "DisruptionTarget") or {}).get("reason", "")
    return f"{DISRUPTIONS.get(reason, 'removed')} ({reason})"


def _progress_text(progress: Progress) -> str:
    if progress.done is None:
        return ""
    unit = progress.unit.removesuffix("s") or "step"
    checkpoint = f"; last checkpoint {progress.checkpoint}" if progress.checkpoint is not None else ""
    return f"{unit} {progress.done}{f' of {progress.total}' if progress.total else ''}{checkpoint}"


def _has_error(ended: Mapping[str, Any]) -> bool:
    return ended.get("exitCode", 0) != 0
