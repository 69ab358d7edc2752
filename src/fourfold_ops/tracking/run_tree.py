"""The runs of one `kedro run` in MLflow: a parent, and a child for each stage that is opened when it is first needed."""

import threading
from collections.abc import Callable
from typing import Any

from fourfold_ops.errors import UserError
from fourfold_ops.secrets import redact
from fourfold_ops.tracking.processes import PROCESS_TAG, is_at_work_here, this_process
from fourfold_ops.tracking.run import TAG_LENGTH, ActiveRun
from fourfold_ops.tracking.store import TrackingStore

PARENT_TAG = "mlflow.parentRunId"
SHARED_SECTIONS = ("seed", "num_threads")  # parameters that every stage depends on


class RunTree:
    """A parent run and the child runs by stage. A guest tree belongs to a driver, which ends the runs.

    Methods may be called from several threads: a runner hands runs over from a separate thread.
    """

    def __init__(self, store: TrackingStore, parameters: dict[str, Any], tags: dict[str, str] | None = None) -> None:
        """Create the tree; `tags` are those of all its runs."""
        self.store, self._parameters, self._tags = store, parameters, tags or {}
        self.parent = ActiveRun()
        self.stages: dict[str, ActiveRun] = {}
        self.opened: dict[str, str] = {}  # ids of all stage runs, also of those that have ended, by stage
        self.is_guest = False
        self._continued = False  # an earlier driver opened the parent run
        self._opening = threading.RLock()

    @classmethod
    def of_driver(cls, store: TrackingStore, parent_run: str, stage_runs: dict[str, str]) -> "RunTree":
        """Return a guest tree of a driver's runs, by their ids."""
        tree = cls(store, {})
        tree.is_guest = True
        tree.parent = ActiveRun(store.client, parent_run)
        tree.stages = {stage: ActiveRun(store.client, run_id) for stage, run_id in stage_runs.items()}
        return tree

    def open_parent(self, name: str, tags: dict[str, str] | None = None) -> None:
        """Open the parent run, with its own tags, and record all parameters in it."""
        self.parent = self._open(name, tags or {})
        self.parent.log_parameters(self._parameters)

    def join(self, key: str, value: str) -> dict[str, str]:
        """Take the parent run with this tag instead of opening one, and return its tags; {} if there is none."""
        wanted = f"tags.`{key}` = '{value}'"
        found = self.store.client.search_runs([self.store.experiment_id], wanted, max_results=1)
        if not found:
            return {}
        self.parent = self._reopened(found[0].info.run_id)
        tags: dict[str, str] = found[0].data.tags
        return tags

    def enter(self, stage: str, is_over: Callable[[str], bool]) -> ActiveRun:
        """Return the run of a stage that works now; end the runs of the other stages that are over."""
        with self._opening:
            for other in [name for name in self.stages if name != stage and is_over(name) and not self.is_guest]:
                _terminate(self.stages.pop(other), "FINISHED")
            return self.stage(stage)

    def stage(self, stage: str) -> ActiveRun:
        """Return the run of a stage; opens it, or continues the one that an earlier driver of this run left."""
        with self._opening:
            if stage not in self.stages:
                self.stages[stage] = self._left_open(stage) or self._new(stage)
                self.opened[stage] = self.stages[stage].run_id
            return self.stages[stage]

    def continue_run(self, run_id: str) -> bool:
        """Take an earlier parent run instead of the one just opened.

        Returns:
            False if the earlier run finished successfully or no longer exists.

        Raises:
            UserError: The process of the earlier run still works on this machine.
        """
        from mlflow.exceptions import MlflowException

        client = self.store.client
        try:
            earlier = client.get_run(run_id)
        except MlflowException:
            return False
        if earlier.info.status == "FINISHED" or earlier.info.lifecycle_stage != "active" or run_id == self.parent.run_id:
            return False
        process = earlier.data.tags.get(PROCESS_TAG, "")
        if earlier.info.status == "RUNNING" and is_at_work_here(process):
            raise UserError(f"Another process ({process}) drives this run already.", "Wait for it, or stop it first.")
        client.set_terminated(self.parent.run_id, "FINISHED")
        client.delete_run(self.parent.run_id)
        self.parent, self._continued = self._reopened(run_id), True
        for tag in ("error", "ended_by"):
            if tag in earlier.data.tags:
                client.delete_tag(run_id, tag)
        return True

    def tag_all(self, tags: dict[str, str]) -> None:
        """Tag the parent and every stage run, also those that have ended; send buffered metrics first."""
        for run in [*self.stages.values(), self.parent]:
            run.flush()
        for run in [self.parent, *(ActiveRun(self.store.client, run_id) for run_id in self.opened.values())]:
            run.set_tags(tags)

    def end(self, status: str) -> None:
        """End all open runs; a guest tree only sends its buffered metrics."""
        for run in [*self.stages.values(), self.parent]:
            if self.is_guest or run.client is None:
                run.flush()
            else:
                _terminate(run, status)

    def _open(self, name: str, tags: dict[str, str]) -> ActiveRun:
        tags = {key: redact(value)[:TAG_LENGTH] for key, value in {**self._tags, **tags}.items()} | {
            PROCESS_TAG: this_process()
        }
        run = self.store.client.create_run(self.store.experiment_id, tags=tags, run_name=name)
        return ActiveRun(self.store.client, run.info.run_id)

    def _new(self, stage: str) -> ActiveRun:
        run = self._open(stage, {PARENT_TAG: self.parent.run_id, "stage": stage})
        run.log_parameters({k: v for k, v in self._parameters.items() if k in (stage, *SHARED_SECTIONS)})
        return run

    def _left_open(self, stage: str) -> ActiveRun | None:
        if not self._continued:
            return None
        wanted = f"tags.`{PARENT_TAG}` = '{self.parent.run_id}' AND tags.stage = '{stage}'"
        found = self.store.client.search_runs([self.store.experiment_id], wanted, max_results=1)
        return self._reopened(found[0].info.run_id) if found else None

    def _reopened(self, run_id: str) -> ActiveRun:
        self.store.client.update_run(run_id, status="RUNNING")
        self.store.client.set_tag(run_id, PROCESS_TAG, this_process())
        return ActiveRun(self.store.client, run_id)


def _terminate(run: ActiveRun, status: str) -> None:
    run.flush()
    run.client.set_terminated(run.run_id, status)
