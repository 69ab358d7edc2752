"""Applies state changes of steps to the schedule, the display, the MLflow runs and the log files.

Only used in the thread of the orchestrator.
"""

import logging
import time
from dataclasses import replace
from pathlib import Path
from typing import Any, Protocol

from fourfold_ops.kubernetes.cluster.objects import is_unreachable, node_of, phase
from fourfold_ops.kubernetes.cluster.pod_logs import PodLogs
from fourfold_ops.kubernetes.driver.active_job import ActiveJob
from fourfold_ops.kubernetes.driver.display import LineDisplay, Row
from fourfold_ops.kubernetes.driver.schedule import SUCCESS, Schedule, State
from fourfold_ops.kubernetes.plan.run_plan import RunPlan
from fourfold_ops.kubernetes.plan.steps import Step
from fourfold_ops.kubernetes.verdicts import Verdict
from fourfold_ops.kubernetes.verdicts.failed import pod_failure
from fourfold_ops.kubernetes.verdicts.progress import updated


class RunTracker(Protocol):
    """Interface of `RunRecords`."""

    def hand_over(self, step: Step) -> dict[str, Any]:
        """Return the fields of the Handover with the runs to which a step reports."""

    def end_step(self, step: Step, error: str) -> None:
        """Record the end of a remote step; `error` is "" if it succeeded."""

    def keep_logs(self, step: Step, files: list[Path]) -> None:
        """Store log files."""


class StatusReporter:
    """Holds the state of all steps, and reports changes."""

    def __init__(self, plan: RunPlan, display: LineDisplay, tracker: RunTracker, logs: PodLogs) -> None:
        self.schedule = Schedule.of(plan.steps)
        self.display, self.tracker, self.logs = display, tracker, logs
        self.failures: list[tuple[Verdict, str]] = []  # with the lines that were shown

    def state(self, step: Step) -> State:
        """Return the state of a step."""
        return self.schedule.state[step.name]

    def set(self, step: Step, state: State) -> None:
        """Set the state of a step and display it."""
        self.schedule.state[step.name] = state
        row = self.display.rows[step.title]
        row.state = state.value
        if row.since is None and state is not State.SKIPPED:
            row.since = time.monotonic()
        if state in (*SUCCESS, State.FAILED, State.CANCELLED):
            row.until = time.monotonic()
            if state is State.DONE:
                row.note = ""
        self.display.refresh()

    def note(self, step: Step, text: str) -> None:
        """Display a note beside a step."""
        self.display.rows[step.title].note = text

    # --- running steps ---

    def show_pods(self, active: ActiveJob) -> None:
        """Display where a step runs; set it to pending again if its pods are lost."""
        row = self.display.rows[active.step.title]
        if active.is_running:
            first = active.live_pods[0]
            active.has_run, active.reason = True, ("", 0.0)
            row.pod, row.node = first["metadata"]["name"], first["spec"]["nodeName"]
            unreachable = ", ".join(sorted({node_of(pod) for pod in active.live_pods if is_unreachable(pod)}))
            row.note = (
                f"node {unreachable} does not answer; the pod is replaced when the cluster declares it lost"
                if unreachable
                else ""
            )
            self.set(active.step, State.RUNNING)
        elif active.has_run and self.state(active.step) is State.RUNNING:
            self.set(active.step, State.PENDING)
        row.pods = f"{len(active.live_pods)}/{active.num_pods}" if active.num_pods > 1 else ""

    def read_line(self, active: ActiveJob, line: str) -> None:
        """Update the progress of a step from a line of its log."""
        active.progress = updated(active.progress, line)
        self.display.rows[active.step.title].progress = active.progress

    def report_retry(self, active: ActiveJob, successor: str) -> None:
        """Report why earlier pods of a Job failed. The failure of the last one is reported when the Job has failed."""
        for name, pod in active.pods.items():
            if name == successor or name in active.reported or phase(pod) != "Failed":
                continue
            active.reported.add(name)
            verdict = pod_failure(pod, active.progress, "")
            counted = ", this does not count as a retry" if verdict.kind in ("disrupted", "terminated") else ""
            line = replace(verdict, remedy=f"pod {successor} takes over{counted}").line(active.step.title)
            self.display.show(line, logging.WARNING)

    # --- ended steps ---

    def done(self, active: ActiveJob) -> None:
        """Report that a step has succeeded, now or under an earlier driver."""
        if active.was_done:
            self.note(active.step, f"Job {active.spec.name} has already done it")
        self.set(active.step, State.SKIPPED if active.was_done else State.DONE)
        self.collect_logs(active)
        self.tracker.end_step(active.step, "")

    def failed(self, active: ActiveJob, verdict: Verdict) -> None:
        """Report that a step has failed."""
        line = verdict.line(active.step.title)
        self.failures.append((verdict, line))
        self.note(active.step, verdict.note)
        self.set(active.step, State.FAILED)
        self.display.show(line, logging.ERROR)
        self.collect_logs(active)
        self.tracker.end_step(active.step, line)

    def collect_logs(self, active: ActiveJob) -> None:
        """Store the logs of a Job, including those of deleted pods."""
        self.tracker.keep_logs(active.step, self.logs.collect(active.spec.name))


def rows(plan: RunPlan) -> list[Row]:
    """Return the rows of the display, one per step."""
    return [Row(step.title, "pod" if step.remote else "driver") for step in plan.steps]
