"""How a pod or a Job ended: out of memory, an error of the code, a bad configuration, a node that went, a deadline."""

import re
from collections.abc import Iterable, Mapping
from typing import Any

from fourfold_ops.failures import EXIT_CONFIGURATION, EXIT_TERMINATED, EXIT_TRY_AGAIN, EXIT_USAGE
from fourfold_ops.kubernetes.objects import Object, condition, ended_at, is_true, limits, node_of, phase, terminated
from fourfold_ops.kubernetes.progress import Progress
from fourfold_ops.kubernetes.verdicts.verdict import Verdict, short

OOM, SIGKILL = "OOMKilled", 137
STOPPED = (EXIT_TRY_AGAIN, EXIT_TERMINATED)  # by SIGTERM, after saving or at once
BAD_CONFIGURATION = (EXIT_CONFIGURATION, EXIT_USAGE)
SAME_FALL_SECONDS = 60  # pods that fail within this time fell together
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
        remedy = f"raise deadline_seconds in kubernetes.yml; go on with: {again}"
        return Verdict("deadline", f"over its deadline of {seconds} s", "", _how_far(progress), remedy)
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
    node, ended = node_of(pod), terminated(pod)
    code, how_far, resume = ended.get("exitCode"), _how_far(progress), f"resume with: {again}"
    if ended.get("reason") == OOM:
        return _out_of_memory(pod, progress, resume)
    if disrupted := disruption(pod):
        return Verdict("disrupted", disrupted, node, how_far, resume)
    if pod.get("status", {}).get("reason") == "Evicted":
        return Verdict("evicted", "evicted", node, short(pod["status"].get("message", "")), f"ask for what it uses; {resume}")
    said = short(python_error(ended.get("message", "") or progress.line))
    if code in BAD_CONFIGURATION:
        what = f"bad configuration (exit {code}, not retried)"
        return Verdict("configuration", what, node, said, "correct it and run again")
    if code == SIGKILL:
        what = f"killed with SIGKILL (exit {code}): out of memory in a child process, or the grace period was over"
        return Verdict("killed", what, node, how_far, f"raise memory or grace_seconds in kubernetes.yml; {resume}")
    if code in STOPPED:
        return Verdict("terminated", f"stopped from outside with SIGTERM (exit {code})", node, how_far, resume)
    if code is None:
        return Verdict("failed", "failed without an exit code", node, short(pod.get("status", {}).get("message", "")), resume)
    signal = f", signal {code - 128}" if code > 128 else ""
    return Verdict("error", f"failed (exit {code}{signal})", node, "; ".join(part for part in (said, how_far) if part), resume)


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
