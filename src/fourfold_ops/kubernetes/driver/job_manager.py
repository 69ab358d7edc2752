"""Submits, adopts, replaces and deletes the Jobs of a run, and reacts to changes of Jobs and pods.

Only used in the thread of the orchestrator.
"""

import time
from typing import Any

from fourfold_ops.kubernetes.cluster import objects
from fourfold_ops.kubernetes.cluster.client import Cluster
from fourfold_ops.kubernetes.cluster.objects import GONE, JOB_LABEL, phase, trimmed
from fourfold_ops.kubernetes.cluster.watch_cache import Change, WatchCache
from fourfold_ops.kubernetes.driver.active_job import ActiveJob
from fourfold_ops.kubernetes.driver.existing_jobs import failed_parts, is_up_to_date
from fourfold_ops.kubernetes.driver.job_creation import RefusedError, create_job, create_service, with_tracking
from fourfold_ops.kubernetes.driver.schedule import State
from fourfold_ops.kubernetes.driver.status import StatusReporter
from fourfold_ops.kubernetes.plan.run_plan import RunPlan
from fourfold_ops.kubernetes.plan.steps import Step
from fourfold_ops.kubernetes.verdicts import Verdict
from fourfold_ops.kubernetes.verdicts.failed import failure


class JobManager:
    """The Jobs of a run. `active` are those that are followed, by name."""

    def __init__(self, plan: RunPlan, cluster: Cluster, cache: WatchCache, status: StatusReporter) -> None:
        self.plan, self.cluster, self.cache, self.status = plan, cluster, cache, status
        self.active: dict[str, ActiveJob] = {}
        self.cancelling = False
        self.cancelled: list[str] = []

    # --- actions ---

    def start(self, step: Step, merge: bool = False) -> None:
        """Submit the Job of a step, or adopt the existing one."""
        spec = self.plan.merge_job(step) if merge else self.plan.step_job(step)
        active = self.active[spec.name] = ActiveJob(step, spec)
        job = self.cache.jobs.get(spec.name)
        if job is None:
            self.submit(active)
        elif job["metadata"].get("deletionTimestamp"):
            active.replacing = True
        elif objects.is_complete(job):
            if is_up_to_date(self.plan, self.status.schedule, step, job, merge):
                active.was_done = True
                self._accept(active, job)
            else:
                self._replace(active)
        elif objects.has_failed(job):
            self._replace(active, failed=job)
        else:
            self._adopt(active, job)

    def submit(self, active: ActiveJob) -> None:
        """Create the Job, or adopt one that was created meanwhile.

        If a quota is exhausted, it is submitted again later.
        """
        active.spec = with_tracking(self.plan, active.step, active.spec, self.status.tracker.hand_over(active.step))
        try:
            job = create_job(self.cluster, active.spec, self.plan)
        except RefusedError as refusal:
            if not refusal.verdict.may_resolve:
                self.fail(active, refusal.verdict)
                return
            active.refusal, active.submitted = refusal.verdict, time.monotonic()
            self.status.set(active.step, State.PENDING)
            return
        active.refusal = None
        if job is None:
            self._adopt(active, self.cluster.get("jobs", active.spec.name))
            return
        self.status.schedule.rerun.add(active.step.name)
        self.status.set(active.step, State.PENDING)
        self._accept(active, job)

    def _adopt(self, active: ActiveJob, job: dict[str, Any]) -> None:
        self.status.display.show(f"{active.step.title}: Job {active.spec.name} exists already; adopting it.")
        self.status.set(active.step, State.PENDING)
        self._accept(active, job)

    def _accept(self, active: ActiveJob, job: dict[str, Any]) -> None:
        job = objects.trimmed_job(job)
        active.submitted, active.job = time.monotonic(), job
        # The Service is owned by the Job, so it needs the uid of the Job and is created after it.
        if active.spec.num_nodes > 1 and not active.was_done:
            create_service(self.cluster, active.spec, self.plan, job["metadata"]["uid"])
        if not active.was_done:
            for pod in self.cache.pods_of(active.spec.name):  # arrived before the uid of the Job was known
                self._pod_changed("MODIFIED", pod)
        self.cache.add_job(job)
        self._job_changed("MODIFIED", job)

    def _replace(self, active: ActiveJob, failed: dict[str, Any] | None = None) -> None:
        """Delete a finished Job, to be created again when it is gone; of a failed split step only the failed parts."""
        if failed and active.spec.parts and (parts := failed_parts(failed)):
            active.spec = self.plan.step_job(active.step, parts)
            numbers = ", ".join(map(str, parts))
            self.status.display.show(f"{active.step.title}: parts {numbers} failed before; only these run again.")
        active.replacing = True
        if not self.cluster.delete("jobs", active.spec.name):
            active.replacing = False
            self.submit(active)

    def give_up(self, active: ActiveJob, verdict: Verdict) -> None:
        """Delete a Job that does not start."""
        self.cluster.delete("jobs", active.spec.name)
        self.fail(active, verdict)

    def fail(self, active: ActiveJob, verdict: Verdict) -> None:
        """Report a failed step and start no further ones."""
        if self.cancelling:
            return
        self.active.pop(active.spec.name, None)
        self.status.failed(active, verdict)
        self.halt()

    def halt(self) -> None:
        """Start no further steps and delete Jobs that have not started; running Jobs may finish."""
        self.status.schedule.halted = True
        for other in list(self.active.values()):
            if not other.has_run:
                # Background: do not wait for pods that have never run.
                self.cluster.delete("jobs", other.spec.name, "Background")
                del self.active[other.spec.name]
                self.status.set(other.step, State.CANCELLED)

    def cancel(self) -> None:
        """Delete all Jobs."""
        self.cancelling = True
        for active in list(self.active.values()):
            self.cancelled.append(active.spec.name)
            if not self.cluster.delete("jobs", active.spec.name):
                self._deleted(active)

    # --- reactions ---

    def changed(self, change: Change) -> None:
        """React to a change in the cluster."""
        resource, kind, changed = change
        if resource == "jobs":
            self._job_changed(kind, changed)
        else:
            self._pod_changed(kind, changed)

    def _job_changed(self, kind: str, job: dict[str, Any]) -> None:
        active = self.active.get(job["metadata"]["name"])
        if active is None:
            return
        if kind == "DELETED":
            # A late event may be about an older Job of the same name.
            if not active.job or active.job["metadata"]["uid"] == job["metadata"]["uid"] or active.replacing:
                self._deleted(active)
            return
        if active.replacing:
            return
        active.job = job
        if objects.is_complete(job):
            self._list_pods(active)
            self._complete(active)
        elif objects.has_failed(job):
            self._list_pods(active)
            self.fail(active, failure(job, active.pods.values(), active.progress, self.plan.again))

    def _list_pods(self, active: ActiveJob) -> None:
        """List the pods of a finished Job if some are missing: the watch of pods may lag behind that of Jobs."""
        status = active.job.get("status", {})
        ended = sum(phase(pod) in ("Succeeded", "Failed") for pod in active.pods.values())
        if ended < max(1, status.get("succeeded", 0) + status.get("failed", 0)) and not active.was_done:
            for pod in self.cluster.all("pods", f"{JOB_LABEL}={active.spec.name}"):
                self._pod_changed("MODIFIED", trimmed(pod))

    def _complete(self, active: ActiveJob) -> None:
        self.active.pop(active.spec.name, None)
        if active.spec.parts:
            self.status.collect_logs(active)
            self.start(active.step, merge=True)
            return
        self.status.done(active)

    def _deleted(self, active: ActiveJob) -> None:
        if self.cancelling:
            self.active.pop(active.spec.name, None)
            self.status.set(active.step, State.CANCELLED)
            self.status.collect_logs(active)
        elif active.replacing:
            active.replacing = False
            self.submit(active)
        else:
            what = f"Job {active.spec.name} was deleted"
            self.fail(active, Verdict("deleted", what, "", "not by this driver", f"run again with: {self.plan.again}"))

    def _pod_changed(self, kind: str, pod: dict[str, Any]) -> None:
        name = pod["metadata"]["name"]
        active = self.active.get(pod["metadata"]["labels"].get(JOB_LABEL, ""))
        if active is None or active.replacing or not active.owns(pod):
            return
        if name not in active.pods:
            self.status.report_retry(active, name)
        active.pods[name] = pod
        if objects.has_started(pod):
            self.status.logs.follow(active.spec.name, name)
        if kind == "DELETED":
            pod["metadata"].update(deletionTimestamp=GONE)
        if kind == "DELETED" or phase(pod) in ("Succeeded", "Failed"):
            self.status.logs.end(active.spec.name, name)
        self.status.show_pods(active)
