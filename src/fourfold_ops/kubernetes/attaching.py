"""What an earlier driver left in the cluster: may it be taken up, does it still stand, is somebody else in the way?"""

import json
from datetime import datetime
from pathlib import Path
from typing import Any

from fourfold_ops.errors import UserError
from fourfold_ops.kubernetes import names
from fourfold_ops.kubernetes.client import Cluster
from fourfold_ops.kubernetes.objects import indexes, is_finished
from fourfold_ops.kubernetes.plan import RunPlan
from fourfold_ops.kubernetes.states import Schedule
from fourfold_ops.kubernetes.steps import Step

CLOCK_SLACK = 5.0  # seconds by which the clocks of file server and API server may differ


def jobs_of_run(plan: RunPlan, cluster: Cluster) -> dict[str, dict[str, Any]]:
    """Return the Jobs of this run that are there, by name.

    Raises UserError when a Job that is not of this very run and code is writing where this run would.
    """
    found: dict[str, dict[str, Any]] = {}
    ours = job_names(plan)
    wanted = {place for places in plan.writes.values() for place in places}
    for job in cluster.all("jobs", names.selector(project=plan.project)):
        name, labels = job["metadata"]["name"], job["metadata"]["labels"]
        if labels.get(names.RUN) == plan.name:
            found[name] = job
        written = set(json.loads(job["metadata"].get("annotations", {}).get(names.WRITES, "[]")))
        if name not in ours and not is_finished(job) and (both := sorted(written & wanted)):
            run = labels.get(names.RUN, "?")
            raise UserError(
                f"Nothing was submitted. Job {name} of run {run} is writing to {', '.join(both)}, as this run would "
                "(another run, or this one with other code).",
                f"Wait for it, or stop it with `kedro k8s cancel {run}{plan.site_option}`.",
            )
    return found


def job_names(plan: RunPlan) -> set[str]:
    """Return the names of all Jobs that this run, code and parameters have."""
    remote = [step for step in plan.steps if step.remote]
    merges = {plan.merge_job(step).name for step in remote if is_split(step)}
    return {plan.step_job(step).name for step in remote} | merges


def is_split(step: Step) -> bool:
    """Tell whether a step's work is done in parts."""
    return (step.request.shards or 1) > 1


def is_current(plan: RunPlan, schedule: Schedule, step: Step, job: dict[str, Any], merge: bool) -> bool:
    """Tell whether what a finished Job made still stands: nothing before it ran anew, and nobody wrote there since."""
    if schedule.follows_fresh(step) or (merge and step.name in schedule.fresh):
        return False
    if is_split(step) and not merge:
        return True  # parts make no output; the merge does
    ended = datetime.fromisoformat(job["status"]["completionTime"]).timestamp()
    return all(path.exists() and _newest(path) <= ended + CLOCK_SLACK for path in plan.outputs.get(step.name, []))


def failed_parts(job: dict[str, Any]) -> tuple[int, ...]:
    """Return the parts of a split step that failed in a Job which may itself have worked on some parts only."""
    failed = job.get("status", {}).get("failedIndexes", "")
    worked_on = job["metadata"].get("annotations", {}).get(names.PARTS, "")
    if not failed or not worked_on:
        return ()
    parts = worked_on.split(",")
    return tuple(int(parts[index]) for index in indexes(failed))


def _newest(path: Path) -> float:
    """Return when something at or below `path` was last written."""
    times = [path.stat().st_mtime]
    if path.is_dir():
        times += [inner.stat().st_mtime for inner in path.rglob("*")]
    return max(times)
