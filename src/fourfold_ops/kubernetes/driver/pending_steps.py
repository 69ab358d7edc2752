"""Explains why submitted steps wait, and gives up after the time limits of kubernetes.yml.

Only used in the thread of the orchestrator.
"""

import time
from dataclasses import replace

from fourfold_ops.kubernetes.driver.active_job import ActiveJob
from fourfold_ops.kubernetes.driver.job_manager import JobManager
from fourfold_ops.kubernetes.driver.schedule import State
from fourfold_ops.kubernetes.verdicts import Verdict
from fourfold_ops.kubernetes.verdicts.failed import pod_failure, root_cause_pod
from fourfold_ops.kubernetes.verdicts.pending import waiting

SETTLE_SECONDS = 3.0  # a reason is shown after it has persisted for so long
RESUBMIT_SECONDS = 10.0  # between attempts to submit a Job that a quota refuses
NO_POD_SECONDS = 10.0  # after which a Job without a pod and without a reason is reported


def check_pending(jobs: JobManager) -> None:
    """Check every Job without a running pod."""
    for active in list(jobs.active.values()):
        if active.refusal is not None:
            _resubmit(jobs, active, active.refusal)
            continue
        if active.replacing or jobs.status.state(active.step) is not State.PENDING or not active.job:
            continue
        verdict = waiting(active.job, active.pods.values(), jobs.cache.events)
        if verdict is None:
            _show_last_failure(jobs, active)
        else:
            _wait(jobs, active, verdict)


def _resubmit(jobs: JobManager, active: ActiveJob, refusal: Verdict) -> None:
    """Submit a Job again at intervals: there is no notification when a quota on Jobs has capacity again."""
    _wait(jobs, active, refusal)
    if active.spec.name in jobs.active and not jobs.cancelling and time.monotonic() - active.submitted > RESUBMIT_SECONDS:
        jobs.submit(active)


def _wait(jobs: JobManager, active: ActiveJob, verdict: Verdict) -> None:
    kind, since = active.reason
    if kind != verdict.kind:
        active.reason = (verdict.kind, time.monotonic())
        return
    waited = time.monotonic() - since
    if waited >= SETTLE_SECONDS:
        jobs.status.note(active.step, verdict.note)
    settings = jobs.plan.settings
    limit = settings.pending_seconds if verdict.may_resolve else settings.start_seconds
    if limit is not None and waited > limit and not jobs.cancelling:
        jobs.give_up(active, verdict)


def _show_last_failure(jobs: JobManager, active: ActiveJob) -> None:
    """Show the last failure of a step that waits without another reason, or that no pod was created."""
    failed = root_cause_pod(active.pods.values())
    if failed is not None:
        verdict = replace(pod_failure(failed, active.progress, ""), remedy="a retry follows")
        jobs.status.note(active.step, verdict.note)
    elif time.monotonic() - active.submitted > NO_POD_SECONDS and not active.pods:
        jobs.status.note(active.step, "the cluster has not created a pod yet, without a reason")
