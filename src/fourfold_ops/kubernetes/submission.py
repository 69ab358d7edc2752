"""Creates a step's Job and what it needs beside it. Keeps no state: whoever created it first, it is there from then on."""

import time
from collections.abc import Mapping
from typing import Any

from fourfold_ops.errors import UserError
from fourfold_ops.kubernetes import names
from fourfold_ops.kubernetes.client import ApiError, Cluster
from fourfold_ops.kubernetes.job_spec import JobSpec
from fourfold_ops.kubernetes.manifest import job, service
from fourfold_ops.kubernetes.plan import RunPlan
from fourfold_ops.kubernetes.steps import Step
from fourfold_ops.kubernetes.verdicts import Verdict
from fourfold_ops.kubernetes.verdicts.refused import forbidden, refused

SERVICE_TRIES = 30  # a second apart
REFUSALS = (400, 403, 404, 422)  # 404: no such namespace


class RefusedError(Exception):
    """The server would not have the Job; `verdict` says why."""

    def __init__(self, verdict: Verdict) -> None:
        super().__init__(verdict.what)
        self.verdict = verdict


def tracked_spec(plan: RunPlan, step: Step, spec: JobSpec, tracked: Mapping[str, Any]) -> JobSpec:
    """Return the Job once more, with where it has to report."""
    if spec.labels[names.ROLE] == "merge":
        return plan.merge_job(step, tracked)
    return plan.step_job(step, spec.parts, tracked)


def create_job(cluster: Cluster, spec: JobSpec, plan: RunPlan) -> dict[str, Any] | None:
    """Create a Job and return it; None where there is one of this name. Raises RefusedError."""
    try:
        return cluster.create("jobs", job(spec, plan.settings))
    except ApiError as failure:
        if failure.status == 409:
            return None
        if failure.status not in REFUSALS:
            raise
        if failure.status == 403:
            verdict = forbidden(failure.verb, failure.resource, failure.namespace, failure.message)
        else:
            verdict = refused(failure.message, "Job")
        raise RefusedError(verdict) from None


def create_service(cluster: Cluster, spec: JobSpec, plan: RunPlan, job_uid: str) -> None:
    """Give the pods of a Job names; the Service of a Job of the same name that was deleted may have to go first."""
    for _ in range(SERVICE_TRIES):
        try:
            cluster.create("services", service(spec, plan.settings, job_uid))
            return
        except ApiError as failure:
            if failure.status != 409:
                raise
        owners = _owners(cluster, spec.name)
        if owners is None:
            continue
        if job_uid in owners:
            return
        time.sleep(1)
    raise UserError(f"Service {spec.name} belongs to something else.", "Delete it, then run again.")


def _owners(cluster: Cluster, name: str) -> list[str] | None:
    try:
        found = cluster.get("services", name)
    except ApiError as failure:
        if failure.status != 404:
            raise
        return None
    return [owner["uid"] for owner in found["metadata"].get("ownerReferences", [])]
