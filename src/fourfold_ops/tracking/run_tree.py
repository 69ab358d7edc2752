"""The runs of one `kedro run` in MLflow: a parent, and a child for each stage that is opened when it is first needed."""

import threading
from collections.abc import Callable
from typing import Any

from fourfold_ops.errors import UserError
from fourfold_ops.tracking.processes import PROCESS_TAG, is_at_work_here, this_process
from fourfold_ops.tracking.run import ActiveRun
from fourfold_ops.tracking.store import TrackingStore

SHARED_SECTIONS = ("seed", "num_threads")  # parameters that every stage depends on


class RunTree:
    """A parent run and the child runs by stage. A guest tree belongs to a driver, which ends the runs.

    Methods may be called from several threads: a runner hands runs over from a separate thread.
    """

    def __init__(self, store: TrackingStore, parameters: dict[str, Any]) -> None:
        self.store, self._parameters = store, parameters
        self.parent = ActiveRun()
        self.stages: dict[str, ActiveRun] = {}
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

    def open_parent(self, name: str, tags: dict[str, str]) -> None:
        """Open the parent run and record all parameters in it."""
        self.parent = self._open(name, tags)
        self.parent.log_parameters(self._parameters)

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

    def end(self, status: str) -> None:
        """End all open runs; a guest tree only sends its buffered metrics."""
        for run in [*self.stages.values(), self.parent]:
            if self.is_guest or run.client is None:
                run.flush()
            else:
                _terminate(run, status)

    def _open(self, name: str, tags: dict[str, str]) -> ActiveRun:
        tags = {**tags, PROCESS_TAG: this_process()}
        run = self.store.client.create_run(self.store.experiment_id, tags=tags, run_name=name)
        return ActiveRun(self.store.client, run.info.run_id)

    def _new(self, stage: str) -> ActiveRun:
        run = self._open(stage, {"mlflow.parentRunId": self.parent.run_id, "stage": stage})
        run.log_parameters({k: v for k, v in self._parameters.items() if k in (stage, *SHARED_SECTIONS)})
        return run

    def _left_open(self, stage: str) -> ActiveRun | None:
        if not self._continued:
            return None
        wanted = f"tags.`mlflow.parentRunId` = '{self.parent.run_id}' AND tags.stage = '{stage}'"
        found = self.store.client.search_runs([self.store.experiment_id], wanted, max_results=1)
        return self._reopened(found[0].info.run_id) if found else None

    def _reopened(self, run_id: str) -> ActiveRun:
        self.store.client.update_run(run_id, status="RUNNING")
        self.store.client.set_tag(run_id, PROCESS_TAG, this_process())
        return ActiveRun(self.store.client, run_id)


def _terminate(run: ActiveRun, status: str) -> None:
    run.flush()
    run.client.set_terminated(run.run_id, status)
