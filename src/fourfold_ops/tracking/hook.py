"""Records every `kedro run` in MLflow: a parent run for the whole, a child for each stage."""

import atexit
import json
import logging
import threading
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from kedro.framework.context import KedroContext
from kedro.framework.hooks import hook_impl
from kedro.io import CatalogProtocol
from kedro.pipeline import Pipeline
from kedro.pipeline.node import Node

from fourfold_ops import handover
from fourfold_ops.failures import UserError
from fourfold_ops.stages import stage_of
from fourfold_ops.tracking.active import ActiveRun, set_active_run
from fourfold_ops.tracking.provenance import command_line, git_tags, lock_digest, machine_tags
from fourfold_ops.tracking.recording import log_data, log_parameters
from fourfold_ops.tracking.store import TrackingStore

logger = logging.getLogger(__name__)
MAX_TAG = 5000
SECTIONS_OF_ALL = ("seed", "num_threads")


@contextmanager
def _quietly() -> Iterator[None]:
    """Keep trouble with the record (a full disk, a lost server) from hiding the failure that is being recorded."""
    try:
        yield
    except Exception:
        logger.debug("The failure could not be recorded.", exc_info=True)


class TrackingHook:
    """Owns the parent run and its children; ends them whatever happens (a SIGKILL is put right by the next run).

    In a step that somebody else's run has started on another machine it owns nothing: it writes into the runs that were handed
    over, and leaves their end to the driver.
    """

    def __init__(self) -> None:
        self._context: KedroContext
        self._store: TrackingStore | None = None
        self._parent = ActiveRun()
        self._stages: dict[str, ActiveRun] = {}
        self._left: Counter[str] = Counter()  # nodes still to run, by stage
        self._logged: set[tuple[str, str, str]] = set()
        self._catalog: Any = None
        self._is_guest = False  # in somebody else's run
        self._continued = False  # the parent run was opened by an earlier driver
        self._opening = threading.RLock()  # a runner may hand over runs from a thread of its own

    @hook_impl
    def after_context_created(self, context: KedroContext) -> None:
        """Remember the context: configuration and folder."""
        self._context = context

    @hook_impl
    def before_pipeline_run(self, run_params: dict[str, Any], pipeline: Pipeline, catalog: CatalogProtocol) -> None:
        """Open the parent run with its tags and all parameters."""
        from fourfold_ops.tracking.processes import end_stale_runs

        if handed := handover.received():
            self._join(handed, catalog)
            return
        self._store = TrackingStore.from_context(self._context)
        end_stale_runs(self._store.client, self._store.experiment_id, self._store.is_local)
        self._catalog = catalog
        self._left = Counter(stage_of(node) for node in pipeline.nodes)
        folder = self._context.project_path
        environment = run_params.get("env") or "base"
        tags = {
            "kedro.command": command_line(run_params),
            "kedro.env": environment,
            "kedro.pipelines": ", ".join(run_params.get("pipeline_names") or ["__default__"]),
            "dvc.lock_md5": lock_digest(folder),
            **git_tags(folder),
            **machine_tags(),
        }
        self._parent = self._open(f"{environment} {run_params.get('run_id', '')}".strip(), tags)
        parameters = self._context.config_loader["parameters"]
        log_parameters(self._parent, parameters)
        self._parent.log_json(json.loads(json.dumps(parameters, default=str)), "parameters.json")
        set_active_run(self._parent)
        atexit.register(self._end_killed)

    @hook_impl
    def before_dataset_loaded(self, dataset_name: str, node: Node) -> None:
        """Open the stage's run with its first input, since an input may be the log of that run."""
        self._enter(node)

    @hook_impl
    def before_node_run(self, node: Node) -> None:
        """Open the stage's run if it has no input."""
        self._enter(node)

    @hook_impl
    def after_dataset_loaded(self, dataset_name: str, data: Any, node: Node) -> None:
        """Record which data a stage read, with a digest."""
        self._log_data(dataset_name, data, node, "input")

    @hook_impl
    def after_dataset_saved(self, dataset_name: str, data: Any, node: Node) -> None:
        """Record which data a stage wrote, with a digest."""
        self._log_data(dataset_name, data, node, "output")

    @hook_impl
    def after_node_run(self, node: Node) -> None:
        """Count down the nodes of the stage."""
        self._left[stage_of(node)] -= 1

    @hook_impl
    def on_node_error(self, error: Exception, node: Node) -> None:
        """Write the failure into the stage's run."""
        with _quietly():
            if run := self._stages.get(stage_of(node)):
                run.client.set_tag(run.run_id, "error", f"{node.name}: {error}"[:MAX_TAG])

    @hook_impl(trylast=True)
    def after_pipeline_run(self) -> None:
        """End all runs well; the lock as versioning left it names what came out."""
        if self._store and not self._is_guest:
            self._store.client.set_tag(self._parent.run_id, "dvc.lock_md5", lock_digest(self._context.project_path))
        self._end("FINISHED")

    @hook_impl
    def on_pipeline_error(self, error: Exception) -> None:
        """End all open runs as FAILED."""
        with _quietly():
            if self._store and not self._is_guest:
                self._store.client.set_tag(self._parent.run_id, "error", str(error)[:MAX_TAG])
            self._end("FAILED")

    def _open(self, name: str, tags: dict[str, str]) -> ActiveRun:
        from fourfold_ops.tracking.processes import PROCESS_TAG, this_process

        assert self._store
        tags = {**tags, PROCESS_TAG: this_process()}
        run = self._store.client.create_run(self._store.experiment_id, tags=tags, run_name=name)
        return ActiveRun(self._store.client, run.info.run_id)

    def _enter(self, node: Node) -> None:
        """Make the stage of `node` the active one: its run opens with its first node and ends when another stage takes over."""
        if self._store is None:
            return
        stage = stage_of(node)
        with self._opening:
            over = [name for name in self._stages if name != stage and self._left[name] == 0 and not self._is_guest]
            for other in over:
                self._terminate(self._stages.pop(other), "FINISHED")
            set_active_run(self._stage_run(stage))

    def _stage_run(self, stage: str) -> ActiveRun:
        """Return the run of a stage, opened if it is not: one that an earlier driver of this run left is gone on with."""
        with self._opening:
            if stage not in self._stages:
                self._stages[stage] = self._left_open(stage) or self._new_stage_run(stage)
            return self._stages[stage]

    def _new_stage_run(self, stage: str) -> ActiveRun:
        run = self._open(stage, {"mlflow.parentRunId": self._parent.run_id, "stage": stage})
        parameters = self._context.config_loader["parameters"]
        log_parameters(run, {k: v for k, v in parameters.items() if k in (stage, *SECTIONS_OF_ALL)})
        return run

    def _left_open(self, stage: str) -> ActiveRun | None:
        assert self._store
        if not self._continued:
            return None
        wanted = f"tags.`mlflow.parentRunId` = '{self._parent.run_id}' AND tags.stage = '{stage}'"
        found = self._store.client.search_runs([self._store.experiment_id], wanted, max_results=1)
        return self._reopened(found[0].info.run_id) if found else None

    def _reopened(self, run_id: str) -> ActiveRun:
        from fourfold_ops.tracking.processes import PROCESS_TAG, this_process

        assert self._store
        self._store.client.update_run(run_id, status="RUNNING")
        self._store.client.set_tag(run_id, PROCESS_TAG, this_process())
        return ActiveRun(self._store.client, run_id)

    # --- steps on other machines ---

    def _join(self, handed: handover.Handover, catalog: CatalogProtocol) -> None:
        """Become a guest in the driver's runs; a process that only helps another one reports nothing."""
        if not handed.parent_run or not handover.writes_results():
            return
        self._is_guest, self._catalog = True, catalog
        self._store = TrackingStore.from_context(self._context)
        self._parent = ActiveRun(self._store.client, handed.parent_run)
        self._stages = {stage: ActiveRun(self._store.client, run_id) for stage, run_id in handed.stage_runs.items()}

    def hand_over(self, nodes: Iterable[Node]) -> dict[str, Any]:
        """Return the fields of a Handover with which a step that runs these nodes elsewhere can report here."""
        if self._store is None:
            return {}
        runs = {stage: self._stage_run(stage).run_id for stage in sorted({stage_of(node) for node in nodes})}
        return {"parent_run": self._parent.run_id, "stage_runs": runs}

    def remote_nodes_over(self, nodes: Iterable[Node], error: str) -> None:
        """Count nodes that ran elsewhere, and write into their stages how they failed, or that a retry went well."""
        if self._store is None:
            return
        for node in nodes:
            self._left[stage_of(node)] -= 1
            with _quietly():
                run = self._stage_run(stage_of(node))
                if error:
                    run.client.set_tag(run.run_id, "error", error[:MAX_TAG])
                elif "error" in run.client.get_run(run.run_id).data.tags:
                    run.client.delete_tag(run.run_id, "error")

    def keep_files(self, node: Node, files: Iterable[Path], place: str) -> None:
        """Keep files as artifacts of the run of the node's stage."""
        if self._store is not None:
            run = self._stage_run(stage_of(node))
            for file in files:
                run.client.log_artifact(run.run_id, str(file), place)

    def continue_run(self, run_id: str) -> bool:
        """Go on with an earlier parent run instead of the one just opened; returns False where that one ended well or is gone.

        Raises UserError when its process is still at work on this machine.
        """
        if self._store is None:
            return False
        from mlflow.exceptions import MlflowException

        from fourfold_ops.tracking.processes import PROCESS_TAG, is_at_work_here

        client = self._store.client
        try:
            earlier = client.get_run(run_id)
        except MlflowException:
            return False
        if earlier.info.status == "FINISHED" or earlier.info.lifecycle_stage != "active" or run_id == self._parent.run_id:
            return False
        process = earlier.data.tags.get(PROCESS_TAG, "")
        if earlier.info.status == "RUNNING" and is_at_work_here(process):
            raise UserError(f"This very run is being driven by another process ({process}).", "Wait for it, or stop it first.")
        client.set_terminated(self._parent.run_id, "FINISHED")
        client.delete_run(self._parent.run_id)
        self._parent, self._continued = self._reopened(run_id), True
        for tag in ("error", "ended_by"):
            if tag in earlier.data.tags:
                client.delete_tag(run_id, tag)
        set_active_run(self._parent)
        return True

    def _log_data(self, dataset_name: str, data: Any, node: Node, context: str) -> None:
        """Log one data set as an input or output of the stage, once."""
        run = self._stages.get(stage_of(node))
        if run is None or dataset_name.startswith("params:") or (run.run_id, dataset_name, context) in self._logged:
            return
        if log_data(run, dataset_name, data, self._catalog.get(dataset_name), context):
            self._logged.add((run.run_id, dataset_name, context))

    def _end(self, status: str) -> None:
        """End all open runs; a second call does nothing. A guest only sends what is waiting."""
        for run in [*self._stages.values(), self._parent]:
            if run.client is not None and self._is_guest:
                run.flush()
            elif run.client is not None:
                self._terminate(run, status)
        self._stages, self._parent, self._store = {}, ActiveRun(), None
        set_active_run(None)
        atexit.unregister(self._end_killed)

    def _end_killed(self) -> None:
        with _quietly():
            self._end("KILLED")

    @staticmethod
    def _terminate(run: ActiveRun, status: str) -> None:
        run.flush()
        run.client.set_terminated(run.run_id, status)
