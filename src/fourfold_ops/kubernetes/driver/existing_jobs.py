"""Jobs that exist when a driver starts: which belong to the run, which are up to date, and which conflict with it."""

import json
from datetime import datetime
from pathlib import Path
from typing import Any

from fourfold_ops.errors import UserError
from fourfold_ops.kubernetes.cluster.client import Cluster
from fourfold_ops.kubernetes.cluster.objects import indexes, is_finished
from fourfold_ops.kubernetes.driver.schedule import Schedule
from fourfold_ops.kubernetes.plan import names
from fourfold_ops.kubernetes.plan.run_plan import RunPlan
from fourfold_ops.kubernetes.plan.steps import Step

CLOCK_TOLERANCE = 5.0  # seconds by which the clocks of the file server and the API server may differ


def jobs_of_run(plan: RunPlan, cluster: Cluster) -> dict[str, dict[str, Any]]:
    """Return the existing Jobs of the run by name.

    Raises:
        UserError: A Job of another run, or of other code, is writing to a location of this run.
    """
    existing: dict[str, dict[str, Any]] = {}
    ours = job_names(plan)
    ours_writes = {location for locations in plan.writes.values() for location in locations}
    for job in cluster.all("jobs", names.selector(project=plan.project)):
        name, labels = job["metadata"]["name"], job["metadata"]["labels"]
        if labels.get(names.RUN) == plan.name:
            existing[name] = job
        written = set(json.loads(job["metadata"].get("annotations", {}).get(names.WRITES, "[]")))
        if name not in ours and not is_finished(job) and (shared := sorted(written & ours_writes)):
            run = labels.get(names.RUN, "?")
            raise UserError(
                f"Nothing was submitted. Job {name} of run {run} is writing to {', '.join(shared)}, as this run would. "
                "It is another run, or this run with other code or parameters.",
                f"Wait for it, or stop it with `kedro k8s cancel {run}{plan.site_option}`.",
            )
    return existing


def job_names(plan: RunPlan) -> set[str]:
    """Return the names of all Jobs that the plan may submit."""
    remote = [step for step in plan.steps if step.remote]
    merges = {plan.merge_job(step).name for step in remote if is_split(step)}
    return {plan.step_job(step).name for step in remote} | merges


def is_split(step: Step) -> bool:
    """Return whether a step is split into parts."""
    return (step.resources.shards or 1) > 1


def is_up_to_date(plan: RunPlan, schedule: Schedule, step: Step, job: dict[str, Any], merge: bool) -> bool:
    """Return whether the result of a finished Job is valid.

    It is if no predecessor has run under this driver, and if its outputs exist and were not modified since.
    """
    if schedule.follows_rerun(step) or (merge and step.name in schedule.rerun):
        return False
    if is_split(step) and not merge:
        return True  # parts write no outputs of the step; the merge does
    ended = datetime.fromisoformat(job["status"]["completionTime"]).timestamp()
    return all(path.exists() and _newest(path) <= ended + CLOCK_TOLERANCE for path in plan.outputs.get(step.name, []))


def failed_parts(job: dict[str, Any]) -> tuple[int, ...]:
    """Return the parts that failed in a Job, which may have worked on some parts of the step only."""
    failed = job.get("status", {}).get("failedIndexes", "")
    parts_of_job = job["metadata"].get("annotations", {}).get(names.PARTS, "")
    if not failed or not parts_of_job:
        return ()
    parts = parts_of_job.split(",")
    return tuple(int(parts[index]) for index in indexes(failed))


def _newest(path: Path) -> float:
    """Return when `path` or anything below it was last modified."""
    times = [path.stat().st_mtime]
    if path.is_dir():
        times += [inner.stat().st_mtime for inner in path.rglob("*")]
    return max(times)
