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
        work = self.active[spec.name] = ActiveJob(step, spec)
        found = self.cache.jobs.get(spec.name)
        if found is None:
            self.submit(work)
        elif found["metadata"].get("deletionTimestamp"):
            work.replacing = True
        elif objects.is_complete(found):
            if is_up_to_date(self.plan, self.status.schedule, step, found, merge):
                work.was_done = True
                self._accept(work, found)
            else:
                self._replace(work)
        elif objects.has_failed(found):
            self._replace(work, failed=found)
        else:
            self._adopt(work, found)

    def submit(self, work: ActiveJob) -> None:
        """Create the Job, or adopt one that was created meanwhile. If a quota is exhausted, it is submitted again later."""
        work.spec = with_tracking(self.plan, work.step, work.spec, self.status.tracker.hand_over(work.step))
        try:
            found = create_job(self.cluster, work.spec, self.plan)
        except RefusedError as refusal:
            if not refusal.verdict.may_resolve:
                self.fail(work, refusal.verdict)
                return
            work.refusal, work.submitted = refusal.verdict, time.monotonic()
            self.status.set(work.step, State.PENDING)
            return
        work.refusal = None
        if found is None:
            self._adopt(work, self.cluster.get("jobs", work.spec.name))
            return
        self.status.schedule.rerun.add(work.step.name)
        self.status.set(work.step, State.PENDING)
        self._accept(work, found)

    def _adopt(self, work: ActiveJob, found: dict[str, Any]) -> None:
        self.status.display.say(f"{work.step.title}: Job {work.spec.name} exists already; adopting it.")
        self.status.set(work.step, State.PENDING)
        self._accept(work, found)

    def _accept(self, work: ActiveJob, found: dict[str, Any]) -> None:
        found = objects.trimmed_job(found)
        work.submitted, work.job = time.monotonic(), found
        if work.spec.num_nodes > 1 and not work.was_done:
            create_service(self.cluster, work.spec, self.plan, found["metadata"]["uid"])
        if not work.was_done:
            for pod in self.cache.pods_of(work.spec.name):  # arrived before the uid of the Job was known
                self._pod_changed("MODIFIED", pod)
        self.cache.add_job(found)
        self._job_changed("MODIFIED", found)

    def _replace(self, work: ActiveJob, failed: dict[str, Any] | None = None) -> None:
        """Delete a finished Job and create it again when it is deleted; of a failed split step only the failed parts."""
        if failed and work.spec.parts and (parts := failed_parts(failed)):
            work.spec = self.plan.step_job(work.step, parts)
            numbers = ", ".join(map(str, parts))
            self.status.display.say(f"{work.step.title}: parts {numbers} failed before; only these run again.")
        work.replacing = True
        if not self.cluster.delete("jobs", work.spec.name):
            work.replacing = False
            self.submit(work)

    def give_up(self, work: ActiveJob, verdict: Verdict) -> None:
        """Delete a Job that does not start."""
        self.cluster.delete("jobs", work.spec.name)
        self.fail(work, verdict)

    def fail(self, work: ActiveJob, verdict: Verdict) -> None:
        """Report a failed step and start no further ones."""
        if self.cancelling:
            return
        self.active.pop(work.spec.name, None)
        self.status.failed(work, verdict)
        self.halt()

    def halt(self) -> None:
        """Start no further steps and delete Jobs that have not started; running Jobs may finish, to keep their work."""
        self.status.schedule.halted = True
        for other in list(self.active.values()):
            if not other.has_run:
                self.cluster.delete("jobs", other.spec.name, "Background")
                del self.active[other.spec.name]
                self.status.set(other.step, State.CANCELLED)

    def cancel(self) -> None:
        """Delete all Jobs."""
        self.cancelling = True
        for work in list(self.active.values()):
            self.cancelled.append(work.spec.name)
            if not self.cluster.delete("jobs", work.spec.name):
                self._deleted(work)

    # --- reactions ---

    def changed(self, change: Change) -> None:
        """React to a change in the cluster."""
        resource, kind, found = change
        if resource == "jobs":
            self._job_changed(kind, found)
        else:
            self._pod_changed(kind, found)

    def _job_changed(self, kind: str, found: dict[str, Any]) -> None:
        work = self.active.get(found["metadata"]["name"])
        if work is None:
            return
        if kind == "DELETED":
            if not work.job or work.job["metadata"]["uid"] == found["metadata"]["uid"] or work.replacing:
                self._deleted(work)
            return
        if work.replacing:
            return
        work.job = found
        if objects.is_complete(found):
            self._list_pods(work)
            self._complete(work)
        elif objects.has_failed(found):
            self._list_pods(work)
            self.fail(work, failure(found, work.pods.values(), work.progress, self.plan.again))

    def _list_pods(self, work: ActiveJob) -> None:
        """List the pods of a finished Job if some are missing: the watch of pods may lag behind that of Jobs."""
        status = work.job.get("status", {})
        ended = sum(phase(pod) in ("Succeeded", "Failed") for pod in work.pods.values())
        if ended < max(1, status.get("succeeded", 0) + status.get("failed", 0)) and not work.was_done:
            for pod in self.cluster.all("pods", f"{JOB_LABEL}={work.spec.name}"):
                self._pod_changed("MODIFIED", trimmed(pod))

    def _complete(self, work: ActiveJob) -> None:
        self.active.pop(work.spec.name, None)
        if work.spec.parts:
            self.status.collect_logs(work)
            self.start(work.step, merge=True)
            return
        self.status.done(work)

    def _deleted(self, work: ActiveJob) -> None:
        if self.cancelling:
            self.active.pop(work.spec.name, None)
            self.status.set(work.step, State.CANCELLED)
            self.status.collect_logs(work)
        elif work.replacing:
            work.replacing = False
            self.submit(work)
        else:
            what = f"Job {work.spec.name} was deleted"
            self.fail(work, Verdict("deleted", what, "", "not by this driver", f"run again with: {self.plan.again}"))

    def _pod_changed(self, kind: str, found: dict[str, Any]) -> None:
        name = found["metadata"]["name"]
        work = self.active.get(found["metadata"]["labels"].get(JOB_LABEL, ""))
        if work is None or work.replacing or not work.owns(found):
            return
        if name not in work.pods:
            self.status.report_retry(work, name)
        work.pods[name] = found
        if objects.has_started(found):
            self.status.logs.follow(work.spec.name, name)
        if kind == "DELETED":
            found["metadata"].update(deletionTimestamp=GONE)
        if kind == "DELETED" or phase(found) in ("Succeeded", "Failed"):
            self.status.logs.end(work.spec.name, name)
        self.status.show_pods(work)
