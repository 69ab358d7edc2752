"""What becomes of the Jobs of a run: begun, taken up, replaced, taken back, and what a change of one of them means.

Belongs to the conductor's thread.
"""

import time
from typing import Any

from fourfold_ops.kubernetes.cluster import objects
from fourfold_ops.kubernetes.cluster.client import Cluster
from fourfold_ops.kubernetes.cluster.objects import GONE, JOB_LABEL, phase, trimmed
from fourfold_ops.kubernetes.cluster.watch_cache import Change, WatchCache
from fourfold_ops.kubernetes.driver.active_job import ActiveJob
from fourfold_ops.kubernetes.driver.existing_jobs import failed_parts, is_current
from fourfold_ops.kubernetes.driver.job_creation import RefusedError, create_job, create_service, with_tracking
from fourfold_ops.kubernetes.driver.schedule import State
from fourfold_ops.kubernetes.driver.status import StatusReporter
from fourfold_ops.kubernetes.plan.run_plan import RunPlan
from fourfold_ops.kubernetes.plan.steps import Step
from fourfold_ops.kubernetes.verdicts import Verdict
from fourfold_ops.kubernetes.verdicts.failed import failure


class JobManager:
    """See the module. `followed`: the Jobs at work, by name."""

    def __init__(self, plan: RunPlan, cluster: Cluster, mirror: WatchCache, standing: StatusReporter) -> None:
        self.plan, self.cluster, self.mirror, self.standing = plan, cluster, mirror, standing
        self.followed: dict[str, ActiveJob] = {}
        self.cancelling = False
        self.cancelled: list[str] = []

    # --- what we do to them ---

    def begin(self, step: Step, merge: bool = False) -> None:
        """Submit a step's Job, or take up the one that is there."""
        spec = self.plan.merge_job(step) if merge else self.plan.step_job(step)
        work = self.followed[spec.name] = ActiveJob(step, spec)
        found = self.mirror.jobs.get(spec.name)
        if found is None:
            self.submit(work)
        elif found["metadata"].get("deletionTimestamp"):
            work.replacing = True
        elif objects.is_complete(found):
            if is_current(self.plan, self.standing.schedule, step, found, merge):
                work.was_done = True
                self._accept(work, found)
            else:
                self._replace(work)
        elif objects.has_failed(found):
            self._replace(work, again=found)
        else:
            self._take_up(work, found)

    def submit(self, work: ActiveJob) -> None:
        """Create the Job. Whoever created it first, it is ours from now on. Where a quota is used up, it waits for its turn."""
        work.spec = with_tracking(self.plan, work.step, work.spec, self.standing.tracker.hand_over(work.step))
        try:
            found = create_job(self.cluster, work.spec, self.plan)
        except RefusedError as refusal:
            if not refusal.verdict.waits_for_place:
                self.fail(work, refusal.verdict)
                return
            work.refusal, work.submitted = refusal.verdict, time.monotonic()
            self.standing.set(work.step, State.PENDING)
            return
        work.refusal = None
        if found is None:
            self._take_up(work, self.cluster.get("jobs", work.spec.name))
            return
        self.standing.schedule.fresh.add(work.step.name)
        self.standing.set(work.step, State.PENDING)
        self._accept(work, found)

    def _take_up(self, work: ActiveJob, found: dict[str, Any]) -> None:
        self.standing.board.say(f"{work.step.title}: Job {work.spec.name} is there already; taking it up.")
        self.standing.set(work.step, State.PENDING)
        self._accept(work, found)

    def _accept(self, work: ActiveJob, found: dict[str, Any]) -> None:
        found = objects.trimmed_job(found)
        work.submitted, work.job = time.monotonic(), found
        if work.spec.num_nodes > 1 and not work.was_done:
            create_service(self.cluster, work.spec, self.plan, found["metadata"]["uid"])
        if not work.was_done:
            for pod in self.mirror.pods_of(work.spec.name):  # seen before it was known whose they are
                self._pod_changed("MODIFIED", pod)
        self.mirror.remember(found)
        self._job_changed("MODIFIED", found)

    def _replace(self, work: ActiveJob, again: dict[str, Any] | None = None) -> None:
        """Delete a Job that is over; it is created again when it is gone. Of a split step only the failed parts are."""
        if again and work.spec.parts and (parts := failed_parts(again)):
            work.spec = self.plan.step_job(work.step, parts)
            some = ", ".join(map(str, parts))
            self.standing.board.say(f"{work.step.title}: parts {some} failed before; only those run again.")
        work.replacing = True
        if not self.cluster.delete("jobs", work.spec.name):
            work.replacing = False
            self.submit(work)

    def give_up(self, work: ActiveJob, verdict: Verdict) -> None:
        """Take back a Job that will not start."""
        self.cluster.delete("jobs", work.spec.name)
        self.fail(work, verdict)

    def fail(self, work: ActiveJob, verdict: Verdict) -> None:
        """A step has failed."""
        if self.cancelling:
            return
        self.followed.pop(work.spec.name, None)
        self.standing.failed(work, verdict)
        self.halt()

    def halt(self) -> None:
        """Start nothing more, and take back what has not begun; what runs may finish, its work is not lost."""
        self.standing.schedule.halted = True
        for other in list(self.followed.values()):
            if not other.has_run:
                self.cluster.delete("jobs", other.spec.name, "Background")
                del self.followed[other.spec.name]
                self.standing.set(other.step, State.CANCELLED)

    def cancel(self) -> None:
        """Take all back."""
        self.cancelling = True
        for work in list(self.followed.values()):
            self.cancelled.append(work.spec.name)
            if not self.cluster.delete("jobs", work.spec.name):
                self._gone(work)

    # --- what we see of them ---

    def changed(self, change: Change) -> None:
        """Do what a change in the cluster asks for."""
        resource, kind, found = change
        if resource == "jobs":
            self._job_changed(kind, found)
        else:
            self._pod_changed(kind, found)

    def _job_changed(self, kind: str, found: dict[str, Any]) -> None:
        work = self.followed.get(found["metadata"]["name"])
        if work is None:
            return
        if kind == "DELETED":
            if not work.job or work.job["metadata"]["uid"] == found["metadata"]["uid"] or work.replacing:
                self._gone(work)
            return
        if work.replacing:
            return
        work.job = found
        if objects.is_complete(found):
            self._see_all_pods(work)
            self._complete(work)
        elif objects.has_failed(found):
            self._see_all_pods(work)
            self.fail(work, failure(found, work.pods.values(), work.progress, self.plan.again))

    def _see_all_pods(self, work: ActiveJob) -> None:
        """Look at the pods of a Job that is over: their watch may be behind that of the Jobs."""
        status = work.job.get("status", {})
        ended = sum(phase(pod) in ("Succeeded", "Failed") for pod in work.pods.values())
        if ended < max(1, status.get("succeeded", 0) + status.get("failed", 0)) and not work.was_done:
            for pod in self.cluster.all("pods", f"{JOB_LABEL}={work.spec.name}"):
                self._pod_changed("MODIFIED", trimmed(pod))

    def _complete(self, work: ActiveJob) -> None:
        self.followed.pop(work.spec.name, None)
        if work.spec.parts:
            self.standing.harvest(work)
            self.begin(work.step, merge=True)
            return
        self.standing.done(work)

    def _gone(self, work: ActiveJob) -> None:
        if self.cancelling:
            self.followed.pop(work.spec.name, None)
            self.standing.set(work.step, State.CANCELLED)
            self.standing.harvest(work)
        elif work.replacing:
            work.replacing = False
            self.submit(work)
        else:
            what = f"Job {work.spec.name} was deleted"
            self.fail(work, Verdict("deleted", what, "", "somebody else did it", f"run again with: {self.plan.again}"))

    def _pod_changed(self, kind: str, found: dict[str, Any]) -> None:
        name = found["metadata"]["name"]
        work = self.followed.get(found["metadata"]["labels"].get(JOB_LABEL, ""))
        if work is None or work.replacing or not work.owns(found):
            return
        if name not in work.pods:
            self.standing.tell_of_retry(work, name)
        work.pods[name] = found
        if objects.has_started(found):
            self.standing.logs.follow(work.spec.name, name)
        if kind == "DELETED":
            found["metadata"].update(deletionTimestamp=GONE)
        if kind == "DELETED" or phase(found) in ("Succeeded", "Failed"):
            self.standing.logs.end(work.spec.name, name)
        self.standing.show_pods(work)
