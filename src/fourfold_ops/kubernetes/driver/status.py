"""How each step stands, and everybody who has to know it: the schedule, the board, the record of runs, the log files.

Belongs to the conductor's thread.
"""

import logging
import time
from dataclasses import replace
from pathlib import Path
from typing import Any, Protocol

from fourfold_ops.kubernetes.cluster.objects import is_out_of_reach, node_of, phase
from fourfold_ops.kubernetes.cluster.pod_logs import PodLogs
from fourfold_ops.kubernetes.driver.active_job import ActiveJob
from fourfold_ops.kubernetes.driver.display import LineDisplay, Row
from fourfold_ops.kubernetes.driver.schedule import GOOD, Schedule, State
from fourfold_ops.kubernetes.plan.run_plan import RunPlan
from fourfold_ops.kubernetes.plan.steps import Step
from fourfold_ops.kubernetes.verdicts import Verdict
from fourfold_ops.kubernetes.verdicts.failed import pod_failure
from fourfold_ops.kubernetes.verdicts.progress import after


class RunTracker(Protocol):
    """What is asked of the record of runs."""

    def hand_over(self, step: Step) -> dict[str, Any]:
        """Return the fields of the Handover that tell a step where to report."""

    def over(self, step: Step, error: str) -> None:
        """Note that a remote step is over; `error` is "" if it went well."""

    def keep(self, step: Step, files: list[Path]) -> None:
        """Keep log files."""


class StatusReporter:
    """See the module."""

    def __init__(self, plan: RunPlan, board: LineDisplay, tracker: RunTracker, logs: PodLogs) -> None:
        self.schedule = Schedule.of(plan.steps)
        self.board, self.tracker, self.logs = board, tracker, logs
        self.failures: list[tuple[Verdict, str]] = []  # with the lines that were said

    def state(self, step: Step) -> State:
        """Return where a step is."""
        return self.schedule.state[step.name]

    def set(self, step: Step, state: State) -> None:
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

    def note(self, step: Step, text: str) -> None:
        """Show a remark beside a step."""
        self.board.rows[step.title].note = text

    # --- while it runs ---

    def show_pods(self, work: ActiveJob) -> None:
        """Show where a step runs, and that it waits again when its pods went."""
        row = self.board.rows[work.step.title]
        if work.is_running:
            first = work.live_pods[0]
            work.has_run, work.reason = True, ("", 0.0)
            row.pod, row.node = first["metadata"]["name"], first["spec"]["nodeName"]
            silent = ", ".join(sorted({node_of(pod) for pod in work.live_pods if is_out_of_reach(pod)}))
            row.note = f"node {silent} does not answer; the pod is replaced once the cluster gives it up" if silent else ""
            self.set(work.step, State.RUNNING)
        elif work.has_run and self.state(work.step) is State.RUNNING:
            self.set(work.step, State.PENDING)
        row.pods = f"{len(work.live_pods)}/{work.num_pods}" if work.num_pods > 1 else ""

    def read_line(self, work: ActiveJob, line: str) -> None:
        """Learn from a line of its log how far a step is."""
        work.progress = after(line, work.progress)
        self.board.rows[work.step.title].progress = work.progress

    def tell_of_retry(self, work: ActiveJob, successor: str) -> None:
        """Say why the pods before this one ended; why the last one did is said when the Job has failed."""
        for name, pod in work.pods.items():
            if name == successor or name in work.told or phase(pod) != "Failed":
                continue
            work.told.add(name)
            verdict = pod_failure(pod, work.progress, "")
            counted = ", no retry is used up" if verdict.kind in ("disrupted", "terminated") else ""
            line = replace(verdict, remedy=f"pod {successor} takes over{counted}").line(work.step.title)
            self.board.say(line, logging.WARNING)

    # --- at its end ---

    def done(self, work: ActiveJob) -> None:
        """A step has ended well, now or before this drive."""
        if work.was_done:
            self.note(work.step, f"Job {work.spec.name} has done it already")
        self.set(work.step, State.SKIPPED if work.was_done else State.DONE)
        self.harvest(work)
        self.tracker.over(work.step, "")

    def failed(self, work: ActiveJob, verdict: Verdict) -> None:
        """A step has failed, and this is why."""
        line = verdict.line(work.step.title)
        self.failures.append((verdict, line))
        self.note(work.step, verdict.note)
        self.set(work.step, State.FAILED)
        self.board.say(line, logging.ERROR)
        self.harvest(work)
        self.tracker.over(work.step, line)

    def harvest(self, work: ActiveJob) -> None:
        """Keep the logs of a Job, also of pods that are gone by now."""
        self.tracker.keep(work.step, self.logs.harvest(work.spec.name))


def rows(plan: RunPlan) -> list[Row]:
    """Return a row of the board for each step."""
    return [Row(step.title, "pod" if step.remote else "driver") for step in plan.steps]
