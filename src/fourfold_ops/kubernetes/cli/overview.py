"""Overview of the runs in the cluster for `kedro k8s list`."""

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime

from fourfold_ops.kubernetes.cluster.objects import JOB_LABEL, Object, has_failed, is_complete, node_of, phase
from fourfold_ops.kubernetes.plan import names
from fourfold_ops.kubernetes.verdicts.failed import failure
from fourfold_ops.kubernetes.verdicts.pending import waiting
from fourfold_ops.kubernetes.verdicts.progress import Progress


@dataclass(frozen=True)
class Entry:
    """A Job of a run."""

    run: str
    title: str
    job: str
    state: str
    age: str
    note: str


def entries(jobs: Iterable[Object], pods: Iterable[Object], now: datetime | None = None) -> list[Entry]:
    """Return an entry for each Job, sorted by run and creation time."""
    by_job: dict[str, list[Object]] = {}
    for pod in pods:
        by_job.setdefault(pod["metadata"]["labels"].get(JOB_LABEL, ""), []).append(pod)
    ordered = sorted(jobs, key=lambda job: (job["metadata"]["labels"].get(names.RUN, ""), job["metadata"]["creationTimestamp"]))
    return [_entry(job, by_job.get(job["metadata"]["name"], []), now or datetime.now(UTC)) for job in ordered]


def _entry(job: Object, pods: list[Object], now: datetime) -> Entry:
    metadata, status = job["metadata"], job.get("status", {})
    state, note = state_of(job), ""
    if state == "failed":
        note = failure(job, pods, Progress(), "the same command").note
    elif state == "pending" and (verdict := waiting(job, pods, {})):
        note = verdict.note
    elif state == "running":
        nodes = sorted({node_of(pod) for pod in pods if phase(pod) == "Running"})
        note = f"{status.get('ready', 0)}/{job['spec'].get('parallelism', 1)} pods, {', '.join(nodes)}"
    role = metadata["labels"].get(names.ROLE, "step")
    title = metadata.get("annotations", {}).get(names.TITLE, metadata["name"]) + ("" if role == "step" else f" ({role})")
    age = _age(datetime.fromisoformat(metadata["creationTimestamp"]), now)
    return Entry(metadata["labels"].get(names.RUN, ""), title, metadata["name"], state, age, note)


def state_of(job: Object) -> str:
    """Return the state of a Job: done, failed, ending (being deleted), running or pending."""
    if job["metadata"].get("deletionTimestamp"):
        return "ending"
    if is_complete(job):
        return "done"
    if has_failed(job):
        return "failed"
    return "running" if job.get("status", {}).get("ready") else "pending"


def _age(since: datetime, now: datetime) -> str:
    seconds = max(0, int((now - since).total_seconds()))
    for unit, size in (("d", 86400), ("h", 3600), ("m", 60)):
        if seconds >= 2 * size:
            return f"{seconds // size}{unit}"
    return f"{seconds}s"
