"""Creates Jobs and their Services. An object that exists already is accepted, so creating is idempotent."""

import time
from collections.abc import Mapping
from typing import Any

from fourfold_ops.errors import UserError
from fourfold_ops.kubernetes.cluster.client import ApiError, Cluster
from fourfold_ops.kubernetes.manifests.job import job, service
from fourfold_ops.kubernetes.plan import names
from fourfold_ops.kubernetes.plan.job_spec import JobSpec
from fourfold_ops.kubernetes.plan.run_plan import RunPlan
from fourfold_ops.kubernetes.plan.steps import Step
from fourfold_ops.kubernetes.verdicts import Verdict
from fourfold_ops.kubernetes.verdicts.refused import forbidden, refused

SERVICE_ATTEMPTS = 30  # one per second
REFUSALS = (400, 403, 404, 422)  # status codes; 404: the namespace does not exist


class RefusedError(Exception):
    """The server refused the Job; `verdict` explains why."""

    def __init__(self, verdict: Verdict) -> None:
        super().__init__(verdict.what)
        self.verdict = verdict


def with_tracking(plan: RunPlan, step: Step, spec: JobSpec, tracked: Mapping[str, Any]) -> JobSpec:
    """Return the Job with the tracked runs to which its processes report."""
    if spec.labels[names.ROLE] == "merge":
        return plan.merge_job(step, tracked)
    return plan.step_job(step, spec.parts, tracked)


def create_job(cluster: Cluster, spec: JobSpec, plan: RunPlan) -> dict[str, Any] | None:
    """Create a Job and return it; None if one of this name exists. Raises RefusedError."""
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
    """Create the Service of a Job.

    If a Job of the same name was just deleted, its Service is deleted by the cluster with a delay: wait for that.
    """
    for _ in range(SERVICE_ATTEMPTS):
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
    raise UserError(
        f"Service {spec.name} exists and does not belong to Job {spec.name}.", "Delete the Service, then run again."
    )


def _owners(cluster: Cluster, name: str) -> list[str] | None:
    try:
        found = cluster.get("services", name)
    except ApiError as failure:
        if failure.status != 404:
            raise
        return None
    return [owner["uid"] for owner in found["metadata"].get("ownerReferences", [])]
