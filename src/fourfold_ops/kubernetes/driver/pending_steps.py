"""Says why submitted steps wait, and gives those up that time alone will not mend. Belongs to the conductor's thread."""

import time
from dataclasses import replace

from fourfold_ops.kubernetes.driver.active_job import ActiveJob
from fourfold_ops.kubernetes.driver.job_manager import JobManager
from fourfold_ops.kubernetes.driver.schedule import State
from fourfold_ops.kubernetes.verdicts import Verdict
from fourfold_ops.kubernetes.verdicts.failed import pod_failure, root_cause_pod
from fourfold_ops.kubernetes.verdicts.pending import waiting

SETTLE_SECONDS = 3.0  # a reason to wait is told once it has held so long
ASK_SECONDS = 10.0  # between attempts to submit what a quota refuses
QUIET_SECONDS = 10.0  # without a pod and without a reason: that is said too


def explain(jobs: JobManager) -> None:
    """Look at every step that waits."""
    for work in list(jobs.followed.values()):
        if work.refusal is not None:
            _ask_again(jobs, work, work.refusal)
            continue
        if work.replacing or jobs.standing.state(work.step) is not State.PENDING or not work.job:
            continue
        verdict = waiting(work.job, work.pods.values(), jobs.mirror.events)
        if verdict is None:
            _say_what_is_known(jobs, work)
        else:
            _wait(jobs, work, verdict)


def _ask_again(jobs: JobManager, work: ActiveJob, refusal: Verdict) -> None:
    """Submit a Job now and then that a quota refuses: of a quota on Jobs nobody is told when there is room."""
    _wait(jobs, work, refusal)
    if work.spec.name in jobs.followed and not jobs.cancelling and time.monotonic() - work.submitted > ASK_SECONDS:
        jobs.submit(work)


def _wait(jobs: JobManager, work: ActiveJob, verdict: Verdict) -> None:
    told, since = work.reason
    if told != verdict.kind:
        work.reason = (verdict.kind, time.monotonic())
        return
    waited = time.monotonic() - since
    if waited >= SETTLE_SECONDS:
        jobs.standing.note(work.step, verdict.note)
    settings = jobs.plan.settings
    limit = settings.pending_seconds if verdict.waits_for_place else settings.start_seconds
    if limit is not None and waited > limit and not jobs.cancelling:
        jobs.give_up(work, verdict)


def _say_what_is_known(jobs: JobManager, work: ActiveJob) -> None:
    """Say of a step that waits without a reason of the cluster's what was last seen of it."""
    failed = root_cause_pod(work.pods.values())
    if failed is not None:
        verdict = replace(pod_failure(failed, work.progress, ""), remedy="the next try follows")
        jobs.standing.note(work.step, verdict.note)
    elif time.monotonic() - work.submitted > QUIET_SECONDS and not work.pods:
        jobs.standing.note(work.step, "the cluster has not made a pod yet, and does not say why")
