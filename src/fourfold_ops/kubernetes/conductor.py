"""Drives the steps of a plan: submits what is ready, watches, explains what waits, and says how each step ended.

One thread owns all state. Watches, logs and the driver's own nodes live in other threads and only put messages into its queue.
"""

import logging
import queue
import threading
import time
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, Protocol

from fourfold_ops.failures import UserError
from fourfold_ops.kubernetes import names, verdicts
from fourfold_ops.kubernetes.attaching import failed_parts, is_current, job_names, jobs_of_run
from fourfold_ops.kubernetes.board import Board, Row
from fourfold_ops.kubernetes.client import ApiAwayError, ApiError, Cluster
from fourfold_ops.kubernetes.errors import DriverCutOffError, StepFailedError, refusal_in_words
from fourfold_ops.kubernetes.manifest import job, service
from fourfold_ops.kubernetes.plan import RunPlan
from fourfold_ops.kubernetes.pod_logs import PodLogs
from fourfold_ops.kubernetes.progress import after
from fourfold_ops.kubernetes.states import GOOD, Schedule, State
from fourfold_ops.kubernetes.steps import Step
from fourfold_ops.kubernetes.work import JOB_LABEL, Work, has_failed, has_started, is_complete, trimmed

logger = logging.getLogger(__name__)
WATCHED = ("jobs", "pods", "events")
TICK_SECONDS = 1.0
SERVICE_TRIES = 30  # a second apart
SETTLE_SECONDS = 3.0  # a reason to wait is told once it has held so long
QUIET_SECONDS = 10.0  # without a pod and without a reason: that is said too


class Tracker(Protocol):
    """What the conductor asks of the record of runs."""

    def hand_over(self, step: Step) -> dict[str, Any]:
        """Return the fields of the Handover that tell a step where to report."""

    def over(self, step: Step, error: str) -> None:
        """Note that a remote step is over; `error` is "" if it went well."""

    def keep(self, step: Step, files: list[Path]) -> None:
        """Keep log files."""


class Conductor(threading.Thread):
    """See the module. `driver_nodes` yields what the main thread has to run itself."""

    def __init__(self, plan: RunPlan, cluster: Cluster, board: Board, tracker: Tracker, log_folder: Path) -> None:
        super().__init__(daemon=True, name="conductor")
        self.plan, self.cluster, self.board, self.tracker = plan, cluster, board, tracker
        self.schedule = Schedule.of(plan.steps)
        self.failures: list[tuple[verdicts.Verdict, str]] = []
        self.error: BaseException | None = None
        self.cancelled: list[str] = []
        self._logs = PodLogs(cluster, log_folder, lambda job, line: self._messages.put(("line", (job, line))))
        self._messages: queue.SimpleQueue[tuple[str, Any]] = queue.SimpleQueue()
        self._for_driver: queue.SimpleQueue[Step | None] = queue.SimpleQueue()
        self._work: dict[str, Work] = {}  # by name of the Job
        self._jobs: dict[str, dict[str, Any]] = {}  # as last seen
        self._pods: dict[str, dict[str, Any]] = {}
        self._events: dict[str, list[dict[str, Any]]] = defaultdict(list)
        self._watched: set[str] = set()  # what has been listed: nothing starts before all is seen
        self._names = job_names(plan)
        self._cancelling = False

    # --- the main thread's side ---

    def driver_nodes(self) -> Iterator[Step]:
        """Yield the steps that the driver runs itself, as their turn comes, until all is over."""
        while (step := self._for_driver.get()) is not None:
            yield step

    def driver_done(self, step: Step, error: BaseException | None = None) -> None:
        """Report how a step in the driver went."""
        self._messages.put(("driver", (step, error)))

    def cancel(self) -> None:
        """Stop everything that this run has in the cluster; the thread ends when it is gone."""
        self._messages.put(("cancel", None))

    def raise_failure(self) -> None:
        """Raise what went wrong, if anything did."""
        if self.error is not None:
            raise self.error
        if self.failures:
            lines = [line for _, line in self.failures]
            raise StepFailedError(lines, any(verdict.kind == "configuration" for verdict, _ in self.failures))

    # --- the thread ---

    def run(self) -> None:
        """Drive until all is over."""
        try:
            self._jobs = jobs_of_run(self.plan, self.cluster)
            for resource in WATCHED:
                self._watch(resource, "" if resource == "events" else names.selector(run=self.plan.name))
            while not self._over():
                self._start_ready()
                self._handle_messages()
                self._explain()
                self.board.refresh()
        except ApiError as failure:
            self.error = refusal_in_words(failure, self.plan.name)
        except ApiAwayError as away:
            self.error = DriverCutOffError(away, self.plan.again)
        except BaseException as error:
            self.error = error
        finally:
            self.cluster.closed.set()
            self._for_driver.put(None)

    def _over(self) -> bool:
        if self._cancelling:
            return not self._work
        return self.schedule.is_over() and not self._work

    def _handle_messages(self) -> None:
        """Wait for a message, then take all that are there."""
        try:
            message = self._messages.get(timeout=TICK_SECONDS)
            while True:
                getattr(self, f"_on_{message[0]}")(message[1])
                if message[0] in WATCHED:
                    self._watched.add(message[0])
                message = self._messages.get_nowait()
        except queue.Empty:
            return

    def _watch(self, resource: str, selector: str) -> None:
        def listen() -> None:
            try:
                for event in self.cluster.watch(resource, selector):
                    self._messages.put((resource, event))
            except BaseException as error:
                self._messages.put(("error", error))

        threading.Thread(target=listen, daemon=True, name=f"watch {resource}").start()

    # --- starting ---

    def _start_ready(self) -> None:
        if self._cancelling or len(self._watched) < len(WATCHED):
            return
        for step in self.schedule.ready():
            if not step.remote:
                self._set(step, State.RUNNING)
                self._for_driver.put(step)
            elif len(self._work) < self.plan.settings.parallel_steps and not self.schedule.halted:
                self._set(step, State.STARTING)
                self._begin(step)

    def _begin(self, step: Step, merge: bool = False) -> None:
        """Submit a step's Job, or take up the one that is there."""
        spec = self.plan.merge_job(step) if merge else self.plan.step_job(step)
        work = self._work[spec.name] = Work(step, spec)
        found = self._jobs.get(spec.name)
        if found is None:
            self._submit(work)
        elif found["metadata"].get("deletionTimestamp"):
            work.replacing = True
        elif is_complete(found):
            if is_current(self.plan, self.schedule, step, found, merge):
                work.was_done = True
                self._accept(work, found)
            else:
                self._replace(work)
        elif has_failed(found):
            self._replace(work, again=found)
        else:
            self._take_up(work, found)

    def _submit(self, work: Work) -> None:
        """Create the Job, and what it needs beside it. Whoever created it first, it is ours from now on."""
        tracked = self.tracker.hand_over(work.step)
        merge = work.spec.labels[names.ROLE] == "merge"
        work.spec = (
            self.plan.merge_job(work.step, tracked) if merge else self.plan.step_job(work.step, work.spec.parts, tracked)
        )
        try:
            found = self.cluster.create("jobs", job(work.spec, self.plan.settings))
            self.schedule.fresh.add(work.step.name)
        except ApiError as failure:
            if failure.status == 409:
                self._take_up(work, self.cluster.get("jobs", work.spec.name))
                return
            if failure.status not in (400, 403, 422):
                raise
            verdict = (
                verdicts.forbidden(failure.verb, failure.resource, failure.namespace, failure.message)
                if failure.status == 403
                else verdicts.refused(failure.message)
            )
            self._fail(work, verdict)
            return
        self._set(work.step, State.PENDING)
        self._accept(work, found)

    def _take_up(self, work: Work, found: dict[str, Any]) -> None:
        self.board.say(f"{work.step.title}: Job {work.spec.name} is there already; taking it up.")
        self._set(work.step, State.PENDING)
        self._accept(work, found)

    def _accept(self, work: Work, found: dict[str, Any]) -> None:
        work.submitted, work.job = time.monotonic(), found
        if work.spec.num_nodes > 1 and not work.was_done:
            self._name_pods(work, found["metadata"]["uid"])
        for pod in list(self._pods.values()):  # seen before it was known whose they are
            if pod["metadata"]["labels"].get(JOB_LABEL) == work.spec.name and not work.was_done:
                self._on_pods(("MODIFIED", pod))
        self._on_jobs(("MODIFIED", found))

    def _name_pods(self, work: Work, uid: str) -> None:
        """Create the Service; one of a Job of the same name that was deleted may have to go first."""
        for _ in range(SERVICE_TRIES):
            try:
                self.cluster.create("services", service(work.spec, self.plan.settings, uid))
                return
            except ApiError as failure:
                if failure.status != 409:
                    raise
            try:
                owners = self.cluster.get("services", work.spec.name)["metadata"].get("ownerReferences", [])
            except ApiError as failure:
                if failure.status != 404:
                    raise
                continue
            if any(owner["uid"] == uid for owner in owners):
                return
            time.sleep(1)
        raise UserError(f"Service {work.spec.name} belongs to something else.", "Delete it, then run again.")

    def _replace(self, work: Work, again: dict[str, Any] | None = None) -> None:
        """Delete a Job that is over; it is created again when it is gone. Of a split step only the failed parts are."""
        if again and work.spec.parts and (parts := failed_parts(again)):
            work.spec = self.plan.step_job(work.step, parts)
            self.board.say(f"{work.step.title}: parts {', '.join(map(str, parts))} failed before; only those run again.")
        work.replacing = True
        if not self.cluster.delete("jobs", work.spec.name):
            work.replacing = False
            self._submit(work)

    # --- watching ---

    def _on_error(self, error: BaseException) -> None:
        raise error

    def _on_jobs(self, event: tuple[str, Any]) -> None:
        kind, found = event
        if kind == "LISTED":
            there = {one["metadata"]["name"]: one for one in found}
            for name in [name for name in self._jobs if name not in there]:
                if self._is_gone(name):  # the list may be older than the Job
                    self._on_jobs(("DELETED", self._jobs[name]))
            for one in found:
                self._on_jobs(("MODIFIED", one))
            return
        name = found["metadata"]["name"]
        work = self._work.get(name)
        if kind == "DELETED":
            self._jobs.pop(name, None)
            if work is not None and (not work.job or work.job["metadata"]["uid"] == found["metadata"]["uid"] or work.replacing):
                self._gone(work)
            return
        self._jobs[name] = found
        if work is None or work.replacing:
            return
        work.job = found
        if is_complete(found):
            self._see_all_pods(work)
            self._complete(work)
        elif has_failed(found):
            self._see_all_pods(work)
            self._fail(work, verdicts.failure(found, work.pods.values(), work.progress, self.plan.again))

    def _see_all_pods(self, work: Work) -> None:
        """Look at the pods of a Job that is over: their watch may be behind that of the Jobs."""
        status = work.job.get("status", {})
        ended = sum(pod["status"].get("phase") in ("Succeeded", "Failed") for pod in work.pods.values())
        if ended < max(1, status.get("succeeded", 0) + status.get("failed", 0)) and not work.was_done:
            for pod in self.cluster.all("pods", f"{JOB_LABEL}={work.spec.name}"):
                self._on_pods(("MODIFIED", pod))

    def _is_gone(self, name: str) -> bool:
        try:
            self.cluster.get("jobs", name)
        except ApiError as error:
            if error.status == 404:
                return True
            raise
        return False

    def _gone(self, work: Work) -> None:
        if self._cancelling:
            self._set(work.step, State.CANCELLED)
            self._harvest(work)
        elif work.replacing:
            work.replacing = False
            self._submit(work)
        else:
            remedy = f"somebody deleted it; run again with: {self.plan.again}"
            self._fail(work, verdicts.Verdict("deleted", f"Job {work.spec.name} was deleted", "", "", remedy))

    def _on_pods(self, event: tuple[str, Any]) -> None:
        kind, found = event
        if kind == "LISTED":
            there = {one["metadata"]["name"] for one in found}
            self._pods = {name: pod for name, pod in self._pods.items() if name in there}
            for one in self._work.values():
                for gone in set(one.pods) - there:
                    self._pod_gone(one, gone)
            for pod in found:
                self._on_pods(("MODIFIED", pod))
            return
        name, metadata = found["metadata"]["name"], found["metadata"]
        found = self._pods[name] = trimmed(found)
        if kind == "DELETED":
            del self._pods[name]
        work = self._work.get(metadata["labels"].get(JOB_LABEL, ""))
        if work is None or work.replacing or not work.owns(found):
            return
        if name not in work.pods:
            self._tell_of_retry(work, name)
        work.pods[name] = found
        phase = found["status"].get("phase")
        if has_started(found):
            self._logs.follow(work, name)
        if phase in ("Succeeded", "Failed"):
            self._logs.end(work, name)
        if kind == "DELETED":
            self._pod_gone(work, name)
        self._show(work)

    def _tell_of_retry(self, work: Work, successor: str) -> None:
        """Say why the pods before this one ended; why the last one did is said when the Job has failed."""
        for name, pod in work.pods.items():
            if name == successor or name in work.told or pod["status"].get("phase") != "Failed":
                continue
            work.told.add(name)
            verdict = verdicts.pod_failure(pod, work.progress, "")
            counted = ", no retry is used up" if verdict.kind in ("disrupted", "terminated") else ""
            line = replace(verdict, remedy=f"pod {successor} takes over{counted}").line(work.step.title)
            self.board.say(line, logging.WARNING)

    def _pod_gone(self, work: Work, name: str) -> None:
        work.pods[name]["metadata"].update(deletionTimestamp=verdicts.GONE)
        self._logs.end(work, name)

    def _on_events(self, event: tuple[str, Any]) -> None:
        kind, found = event
        if kind == "LISTED":
            for one in found:
                self._on_events(("ADDED", one))
            return
        about = found.get("involvedObject", {}).get("name", "")
        if kind != "DELETED" and any(name in about for name in self._names):
            self._events[about] = [*self._events[about][-9:], {k: found.get(k) for k in EVENT_FIELDS}]

    def _on_line(self, message: tuple[str, str]) -> None:
        name, line = message
        if (work := self._work.get(name)) is not None:
            work.progress = after(line, work.progress)
            self.board.rows[work.step.title].progress = work.progress

    def _show(self, work: Work) -> None:
        row = self.board.rows[work.step.title]
        if work.is_running:
            first = work.live_pods[0]
            work.has_run, work.reason = True, ("", 0.0)
            row.pod, row.node, row.note = first["metadata"]["name"], first["spec"]["nodeName"], ""
            self._set(work.step, State.RUNNING)
        elif work.has_run and self.schedule.state[work.step.name] is State.RUNNING:
            self._set(work.step, State.PENDING)
        row.pods = f"{len(work.live_pods)}/{work.num_pods}" if work.num_pods > 1 else ""

    def _explain(self) -> None:
        """Say why submitted steps wait, and give those up that time alone will not mend."""
        if self.cluster.away_since is not None:
            return
        now = time.monotonic()
        for work in list(self._work.values()):
            if work.replacing or self.schedule.state[work.step.name] is not State.PENDING or not work.job:
                continue
            verdict = verdicts.waiting(work.job, work.pods.values(), self._events)
            if verdict is None:
                self._say_what_is_known(work)
                continue
            told, since = work.reason
            if told != verdict.kind:
                work.reason = (verdict.kind, now)
                continue
            waited = now - since
            if waited >= SETTLE_SECONDS:
                self.board.rows[work.step.title].note = verdict.line("").removeprefix(": ")
            limit = self.plan.settings.pending_seconds if verdict.waits_for_place else self.plan.settings.start_seconds
            if limit is not None and waited > limit and not self._cancelling:
                self.cluster.delete("jobs", work.spec.name)
                self._fail(work, verdict)

    def _say_what_is_known(self, work: Work) -> None:
        """Say of a step that waits without a reason of the cluster's what was last seen of it."""
        row = self.board.rows[work.step.title]
        failed = verdicts.telling_pod(work.pods.values())
        if failed is not None:
            row.note = replace(verdicts.pod_failure(failed, work.progress, ""), remedy="the next try follows").line("")[2:]
        elif time.monotonic() - work.submitted > QUIET_SECONDS and not work.pods:
            row.note = "the cluster has not made a pod yet, and does not say why"

    # --- ending ---

    def _complete(self, work: Work) -> None:
        if work.spec.parts:
            self._harvest(work)
            self._begin(work.step, merge=True)
            return
        if work.was_done:
            self.board.rows[work.step.title].note = f"Job {work.spec.name} has done it already"
        self._set(work.step, State.SKIPPED if work.was_done else State.DONE)
        self._harvest(work)
        self.tracker.over(work.step, "")

    def _fail(self, work: Work, verdict: verdicts.Verdict) -> None:
        if self._cancelling:
            return
        line = verdict.line(work.step.title)
        self.failures.append((verdict, line))
        self.board.rows[work.step.title].note = verdict.line("").removeprefix(": ")
        self._set(work.step, State.FAILED)
        self.board.say(line, logging.ERROR)
        self._harvest(work)
        self.tracker.over(work.step, line)
        self._halt()

    def _halt(self) -> None:
        """Start nothing more, and take back what has not begun; what runs may finish, its work is not lost."""
        self.schedule.halted = True
        for other in list(self._work.values()):
            if not other.has_run:
                self.cluster.delete("jobs", other.spec.name, "Background")
                del self._work[other.spec.name]
                self._set(other.step, State.CANCELLED)

    def _harvest(self, work: Work) -> None:
        """Be done with a Job: its logs are kept, also of pods that are gone by now."""
        self._work.pop(work.spec.name, None)
        self.tracker.keep(work.step, self._logs.harvest(work))

    def _on_driver(self, message: tuple[Step, BaseException | None]) -> None:
        step, error = message
        self._set(step, State.FAILED if error else State.DONE)
        if error:
            self.error = self.error or error
            self._halt()

    def _on_cancel(self, _: None) -> None:
        self._cancelling = True
        for work in list(self._work.values()):
            self.cancelled.append(work.spec.name)
            if not self.cluster.delete("jobs", work.spec.name):
                self._gone(work)

    def _set(self, step: Step, state: State) -> None:
        """Move a step, and what is shown of it."""
        self.schedule.state[step.name] = state
        row = self.board.rows[step.title]
        row.state = state.value
        if row.since is None and state is not State.SKIPPED:
            row.since = time.monotonic()
        if state in (*GOOD, State.FAILED, State.CANCELLED):
            row.until = time.monotonic()
            if state is State.DONE:
                row.note = ""
        self.board.refresh()


EVENT_FIELDS = ("reason", "message", "lastTimestamp", "eventTime", "type")


def rows(plan: RunPlan) -> list[Row]:
    """Return a row of the board for each step."""
    return [Row(step.title, "pod" if step.remote else "driver") for step in plan.steps]
