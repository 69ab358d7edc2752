"""Drives the steps of a plan to their end: the thread, its queue, and whose turn it is.

One thread owns all state. It alone calls what is in `WatchCache` (the cluster as last seen), `Jobs` (what becomes of them),
`StatusReporter` (how each step stands, and who is told) and `explain` (why steps wait): none of them has a thread or a lock.
Watches, logs and the driver's own nodes live in other threads and only put messages into the queue.
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
from fourfold_ops.kubernetes.driver.pending_steps import explain
from fourfold_ops.kubernetes.driver.schedule import State
from fourfold_ops.kubernetes.driver.status import RunTracker, StatusReporter
from fourfold_ops.kubernetes.plan import names
from fourfold_ops.kubernetes.plan.run_plan import RunPlan
from fourfold_ops.kubernetes.plan.steps import Step

TICK_SECONDS = 1.0


class Orchestrator(threading.Thread):
    """See the module. `driver_nodes` yields what the main thread has to run itself."""

    def __init__(self, plan: RunPlan, cluster: Cluster, board: LineDisplay, tracker: RunTracker, log_folder: Path) -> None:
        super().__init__(daemon=True, name="conductor")
        self.plan, self.cluster, self.board = plan, cluster, board
        self.error: BaseException | None = None
        self._messages: queue.SimpleQueue[tuple[str, Any]] = queue.SimpleQueue()
        self._for_driver: queue.SimpleQueue[Step | None] = queue.SimpleQueue()
        self._mirror = WatchCache(cluster, job_names(plan))
        logs = PodLogs(cluster, log_folder, lambda job, line: self._put("line", (job, line)))
        self._standing = StatusReporter(plan, board, tracker, logs)
        self._jobs = JobManager(plan, cluster, self._mirror, self._standing)

    # --- the main thread's side ---

    def driver_nodes(self) -> Iterator[Step]:
        """Yield the steps that the driver runs itself, as their turn comes, until all is over."""
        while (step := self._for_driver.get()) is not None:
            yield step

    def driver_done(self, step: Step, error: BaseException | None = None) -> None:
        """Report how a step in the driver went."""
        self._put("driver", (step, error))

    def cancel(self) -> None:
        """Stop everything that this run has in the cluster; the thread ends when it is gone."""
        self._put("cancel", None)

    @property
    def cancelled(self) -> list[str]:
        """The Jobs that were stopped; for when the thread has ended."""
        return self._jobs.cancelled

    def raise_failure(self) -> None:
        """Raise what went wrong, if anything did; for when the thread has ended."""
        if self.error is not None:
            raise self.error
        if failures := self._standing.failures:
            raise StepFailedError(
                [line for _, line in failures], any(verdict.kind == "configuration" for verdict, _ in failures)
            )

    def _put(self, kind: str, content: Any) -> None:
        self._messages.put((kind, content))

    # --- the thread ---

    def run(self) -> None:
        """Drive until all is over."""
        try:
            for job in jobs_of_run(self.plan, self.cluster).values():
                self._mirror.remember(job)
            start_watches(self.cluster, names.selector(run=self.plan.name), self._put)
            while not self._over():
                self._start_ready()
                self._handle_messages()
                if self.cluster.unreachable_since is None:
                    explain(self._jobs)
                self.board.refresh()
        except ApiError as failure:
            self.error = readable_error(failure, self.plan.name)
        except ApiUnreachableError as away:
            self.error = DriverCutOffError(away, self.plan.again)
        except BaseException as error:
            self.error = error
        finally:
            self.cluster.closed.set()
            self._for_driver.put(None)

    def _over(self) -> bool:
        return not self._jobs.followed and (self._jobs.cancelling or self._standing.schedule.is_over())

    def _start_ready(self) -> None:
        if self._jobs.cancelling or not self._mirror.is_whole:
            return
        schedule = self._standing.schedule
        for step in schedule.ready():
            if not step.remote:
                self._standing.set(step, State.RUNNING)
                self._for_driver.put(step)
            elif len(self._jobs.followed) < self.plan.settings.parallel_steps and not schedule.halted:
                self._standing.set(step, State.STARTING)
                self._jobs.begin(step)

    def _handle_messages(self) -> None:
        """Wait for a message, then take all that are there."""
        try:
            message = self._messages.get(timeout=TICK_SECONDS)
            while True:
                self._handle(*message)
                message = self._messages.get_nowait()
        except queue.Empty:
            return

    def _handle(self, kind: str, content: Any) -> None:
        if kind in WATCHED:
            for change in self._mirror.take(kind, content):
                self._jobs.changed(change)
        elif kind == "line":
            job, line = content
            if (work := self._jobs.followed.get(job)) is not None:
                self._standing.read_line(work, line)
        elif kind == "driver":
            self._driver_is_done(*content)
        elif kind == "cancel":
            self._jobs.cancel()
        else:
            assert kind == "error", kind
            raise content

    def _driver_is_done(self, step: Step, error: BaseException | None) -> None:
        self._standing.set(step, State.FAILED if error else State.DONE)
        if error:
            self.error = self.error or error
            self._jobs.halt()
