"""Runs the steps of a plan: one thread that handles the messages of all others.

The thread owns all state: `WatchCache` (last known state of the cluster), `JobManager` (submits and follows Jobs),
`StatusReporter` (state of each step and its display) and `check_pending` (why steps wait) need no locks. Watches,
logs and the nodes of the driver run in other threads, which only put messages into the queue.
"""

import queue
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from fourfold_ops.kubernetes.cluster.client import ApiError, ApiUnreachableError, Cluster
from fourfold_ops.kubernetes.cluster.pod_logs import PodLogs
from fourfold_ops.kubernetes.cluster.watch_cache import WATCHED, WatchCache, start_watches
from fourfold_ops.kubernetes.driver.display import LineDisplay
from fourfold_ops.kubernetes.driver.errors import DriverCutOffError, StepFailedError, readable_error
from fourfold_ops.kubernetes.driver.existing_jobs import job_names, jobs_of_run
from fourfold_ops.kubernetes.driver.job_manager import JobManager
from fourfold_ops.kubernetes.driver.pending_steps import check_pending
from fourfold_ops.kubernetes.driver.schedule import State
from fourfold_ops.kubernetes.driver.status import RunTracker, StatusReporter
from fourfold_ops.kubernetes.plan import names
from fourfold_ops.kubernetes.plan.run_plan import RunPlan
from fourfold_ops.kubernetes.plan.steps import Step

TICK_SECONDS = 1.0


class Orchestrator(threading.Thread):
    """Runs remote steps as Jobs, and passes the other steps to the main thread with `driver_steps`."""

    def __init__(self, plan: RunPlan, cluster: Cluster, display: LineDisplay, tracker: RunTracker, log_folder: Path) -> None:
        super().__init__(daemon=True, name="orchestrator")
        self.plan, self.cluster, self.display = plan, cluster, display
        self.error: BaseException | None = None
        self._messages: queue.SimpleQueue[tuple[str, Any]] = queue.SimpleQueue()
        self._for_driver: queue.SimpleQueue[Step | None] = queue.SimpleQueue()
        self._cache = WatchCache(cluster, job_names(plan))
        logs = PodLogs(cluster, log_folder, lambda job, line: self._put("line", (job, line)))
        self._status = StatusReporter(plan, display, tracker, logs)
        self._jobs = JobManager(plan, cluster, self._cache, self._status)

    # --- called by the main thread ---

    def driver_steps(self) -> Iterator[Step]:
        """Yield the steps that the main thread has to run, when they are ready, until the run is over."""
        while (step := self._for_driver.get()) is not None:
            yield step

    def driver_done(self, step: Step, error: BaseException | None = None) -> None:
        """Report the end of a step of the driver, with the error if it failed."""
        self._put("driver", (step, error))

    def cancel(self) -> None:
        """Delete all Jobs of the run; the thread ends when they are deleted."""
        self._put("cancel", None)

    @property
    def cancelled(self) -> list[str]:
        """Names of the Jobs that were deleted; call it after the thread has ended."""
        return self._jobs.cancelled

    def raise_failure(self) -> None:
        """Raise the error of the run, if there is one; call it after the thread has ended."""
        if self.error is not None:
            raise self.error
        if failures := self._status.failures:
            raise StepFailedError(
                [line for _, line in failures], any(verdict.kind == "configuration" for verdict, _ in failures)
            )

    def _put(self, kind: str, content: Any) -> None:
        self._messages.put((kind, content))

    # --- the thread of the orchestrator ---

    def run(self) -> None:
        """Handle messages until the run is over."""
        try:
            for job in jobs_of_run(self.plan, self.cluster).values():
                self._cache.add_job(job)
            start_watches(self.cluster, names.selector(run=self.plan.name), self._put)
            while not self._is_over():
                self._start_ready()
                self._handle_messages()
                if self.cluster.unreachable_since is None:
                    check_pending(self._jobs)
                self.display.refresh()
        except ApiError as failure:
            self.error = readable_error(failure, self.plan.name)
        except ApiUnreachableError as error:
            self.error = DriverCutOffError(error, self.plan.again)
        except BaseException as error:
            self.error = error
        finally:
            self.cluster.closed.set()
            self._for_driver.put(None)

    def _is_over(self) -> bool:
        return not self._jobs.active and (self._jobs.cancelling or self._status.schedule.is_over())

    def _start_ready(self) -> None:
        if self._jobs.cancelling or not self._cache.is_complete:
            return
        schedule = self._status.schedule
        for step in schedule.ready():
            if not step.remote:
                self._status.set(step, State.RUNNING)
                self._for_driver.put(step)
            elif len(self._jobs.active) < self.plan.settings.parallel_steps and not schedule.halted:
                self._status.set(step, State.STARTING)
                self._jobs.start(step)

    def _handle_messages(self) -> None:
        """Wait for a message for at most a tick, then handle all that have arrived."""
        try:
            message = self._messages.get(timeout=TICK_SECONDS)
            while True:
                self._handle(*message)
                message = self._messages.get_nowait()
        except queue.Empty:
            return

    def _handle(self, kind: str, content: Any) -> None:
        if kind in WATCHED:
            for change in self._cache.apply(kind, content):
                self._jobs.changed(change)
        elif kind == "line":
            job, line = content
            if (active := self._jobs.active.get(job)) is not None:
                self._status.read_line(active, line)
        elif kind == "driver":
            self._end_driver_step(*content)
        elif kind == "cancel":
            self._jobs.cancel()
        else:
            assert kind == "error", kind
            raise content

    def _end_driver_step(self, step: Step, error: BaseException | None) -> None:
        self._status.set(step, State.FAILED if error else State.DONE)
        if error:
            self.error = self.error or error
            self._jobs.halt()
