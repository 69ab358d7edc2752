"""Records every `kedro run` in MLflow: a parent run for the whole, a child run for each stage."""

import atexit
import logging
import os
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
from fourfold_ops.loading import load_object
from fourfold_ops.recording import RunRecord
from fourfold_ops.secrets import add_secrets, add_secrets_of, is_secret_name, refuse_secrets
from fourfold_ops.sending import send_before_run
from fourfold_ops.stages import stage_of
from fourfold_ops.tracking import names
from fourfold_ops.tracking.processes import end_stale_runs
from fourfold_ops.tracking.provenance import flat
from fourfold_ops.tracking.results import leaves, results_tags
from fourfold_ops.tracking.run import set_active_run
from fourfold_ops.tracking.run_tree import RunTree
from fourfold_ops.tracking.store import TrackingStore
from fourfold_ops.tracking.system import SystemMetrics

logger = logging.getLogger(__name__)


@contextmanager
def _quietly() -> Iterator[None]:
    """Keep a failure of the store (a full disk, a lost server) from hiding the failure that is being recorded."""
    try:
        yield
    except Exception:
        logger.warning("The failure could not be recorded in MLflow; data/run.log has the reason.")
        logger.debug("The failure could not be recorded.", exc_info=True)


class TrackingHook:
    """Owns the parent run and its children, and ends them in every case; after a SIGKILL, the next run ends them.

    In a step that a driver started on another machine it owns nothing: it writes into the runs that were handed over, and the
    driver ends them.
    """

    def __init__(self, compute_facts: str = "") -> None:
        """Create the hook.

        Args:
            compute_facts: Dotted path of a function (stage, parameters) → dictionary: facts about the machine that change
                results, such as the precision. They are recorded as tags `compute.*` of the stage's run, by the process that
                runs its nodes.
        """
        self._compute_facts = compute_facts
        self._context: KedroContext
        self._runs: RunTree | None = None  # of the current run; None: nothing is recorded
        self._left: Counter[str] = Counter()  # number of nodes still to run, by stage
        self._logged: set[tuple[str, str, str]] = set()
        self._system = SystemMetrics()
        self._described: set[str] = set()  # stages whose compute facts are recorded
        self._catalog: Any = None
        self._record: RunRecord | None = None  # None in a step that a driver started elsewhere

    @hook_impl
    def after_context_created(self, context: KedroContext) -> None:
        """Keep the context: configuration and project folder. From now on, what is recorded has no secret."""
        self._context = context
        add_secrets_of(context.project_path)
        parameters = flat(context.config_loader["parameters"])
        add_secrets(value for name, value in parameters.items() if is_secret_name(name))

    @hook_impl
    def before_pipeline_run(self, run_params: dict[str, Any], pipeline: Pipeline, catalog: CatalogProtocol) -> None:
        """Open the parent run with its tags and all parameters."""
        if handed := handover.received():
            self._join(handed, catalog)
            return
        refuse_secrets(flat(run_params.get("runtime_params") or {}))
        store = TrackingStore.from_context(self._context)
        send_before_run(store)
        end_stale_runs(store.client, store.experiment_id, store.is_local)
        self._catalog = catalog
        self._left = Counter(stage_of(node) for node in pipeline.nodes)
        self._record = RunRecord(self._context, store, run_params)
        self._runs = self._record.runs
        set_active_run(self._runs.parent)
        atexit.register(self._end_killed)

    @hook_impl
    def before_dataset_loaded(self, dataset_name: str, node: Node) -> None:
        """Open the run of the stage with its first input, since an input may be the log of that run."""
        self._enter(node)

    @hook_impl
    def before_node_run(self, node: Node) -> None:
        """Open the run of the stage if the node has no input; record the compute facts once per stage."""
        self._enter(node)
        self._record_compute_facts(stage_of(node))

    @hook_impl
    def after_dataset_loaded(self, dataset_name: str, data: Any, node: Node) -> None:
        """Record which data a stage read, with a digest."""
        self._log_data(dataset_name, data, node, "input")

    @hook_impl
    def after_dataset_saved(self, dataset_name: str, data: Any, node: Node) -> None:
        """Record which data a stage wrote, with a digest; metrics and pages also in the parent run."""
        self._log_data(dataset_name, data, node, "output")
        self._record_result(dataset_name, data, node)

    @hook_impl
    def after_node_run(self, node: Node) -> None:
        """Count the node as done."""
        self._left[stage_of(node)] -= 1

    @hook_impl
    def on_node_error(self, error: Exception, node: Node) -> None:
        """Write the failure into the run of the stage."""
        with _quietly():
            if self._runs and (run := self._runs.stages.get(stage_of(node))):
                run.set_tag("error", f"{node.name}: {error}")

    @hook_impl(trylast=True)
    def after_pipeline_run(self, pipeline: Pipeline) -> None:
        """Record what the run covers and the lock that VersioningHook wrote, also on the model; end all runs as FINISHED."""
        if self._record is not None:
            self._record.conclude({node.name for node in pipeline.nodes})
        self._end("FINISHED")

    @hook_impl
    def on_pipeline_error(self, error: Exception) -> None:
        """End all open runs as FAILED."""
        with _quietly():
            if self._runs and not self._runs.is_guest:
                self._runs.parent.set_tag("error", str(error))
            self._end("FAILED")

    def _enter(self, node: Node) -> None:
        """Make the run of the node's stage the active one. It opens with its first node and ends when another stage starts."""
        if self._runs is not None:
            run = self._runs.enter(stage_of(node), lambda stage: self._left[stage] == 0)
            set_active_run(run)
            self._system.watch(run)

    def _record_compute_facts(self, stage: str) -> None:
        if self._runs is None or not self._compute_facts or stage in self._described:
            return
        self._described.add(stage)
        facts = load_object(self._compute_facts)(stage, self._context.config_loader["parameters"])
        self._runs.stage(stage).set_tags({f"compute.{name}": value for name, value in facts.items()})

    def _record_result(self, dataset_name: str, data: Any, node: Node) -> None:
        """Record a result with `metadata: {record: metrics}` or `{record: artifact}` in the runs of stage and parent."""
        if self._runs is None or (run := self._runs.stages.get(stage_of(node))) is None:
            return
        entry = self._catalog.get(dataset_name)
        kind = (getattr(entry, "metadata", None) or {}).get("record")
        if kind is None:
            return
        path = Path(entry._describe()["filepath"])
        for target in (run, self._runs.parent):
            target.log_file(path, f"{names.RESULTS}/{path.name}")
            if kind == "metrics":
                target.log_metrics(leaves(data))
                target.set_tags(results_tags(data))

    # --- steps on other machines ---

    def _join(self, handed: handover.Handover, catalog: CatalogProtocol) -> None:
        """Write into the driver's runs; a process that only helps another one records nothing."""
        if handed.parent_run and handover.writes_results():
            self._catalog = catalog
            self._runs = RunTree.of_driver(TrackingStore.from_context(self._context), handed.parent_run, handed.stage_runs)
            if image := os.environ.get(handover.IMAGE):
                for run in self._runs.stages.values():
                    run.set_tags({names.IMAGE: image})

    def hand_over(self, nodes: Iterable[Node]) -> dict[str, Any]:
        """Return the fields of a Handover with which a step that runs these nodes elsewhere can report here."""
        if self._runs is None:
            return {}
        runs = {stage: self._runs.stage(stage).run_id for stage in sorted({stage_of(node) for node in nodes})}
        return {"parent_run": self._runs.parent.run_id, "stage_runs": runs}

    def remote_nodes_over(self, nodes: Iterable[Node], error: str) -> None:
        """Count nodes that ran elsewhere as done; record in their stages how they failed, or that a retry succeeded."""
        if self._runs is None:
            return
        for node in nodes:
            self._left[stage_of(node)] -= 1
            with _quietly():
                run = self._runs.stage(stage_of(node))
                if error:
                    run.set_tag("error", error)
                elif "error" in run.client.get_run(run.run_id).data.tags:
                    run.client.delete_tag(run.run_id, "error")

    def keep_files(self, node: Node, files: Iterable[Path], folder: str) -> None:
        """Store files as artifacts `folder/<name>` of the run of the node's stage."""
        if self._runs is not None:
            run = self._runs.stage(stage_of(node))
            for file in files:
                run.log_file(file, f"{folder}/{file.name}")

    def continue_run(self, run_id: str) -> bool:
        """Continue an earlier parent run instead of the one just opened.

        Returns:
            False if the earlier run finished successfully or no longer exists.

        Raises:
            UserError: The process of the earlier run still works on this machine.
        """
        if self._runs is None or not self._runs.continue_run(run_id):
            return False
        if self._record is not None:
            self._record.log_origin()  # of the code that continues
        set_active_run(self._runs.parent)
        return True

    def _log_data(self, dataset_name: str, data: Any, node: Node, context: str) -> None:
        """Record one data set as an input or output of the stage, once."""
        run = self._runs.stages.get(stage_of(node)) if self._runs else None
        if run is None or dataset_name.startswith("params:") or (run.run_id, dataset_name, context) in self._logged:
            return
        if run.log_data(dataset_name, data, self._catalog.get(dataset_name), context):
            self._logged.add((run.run_id, dataset_name, context))

    def _end(self, status: str) -> None:
        """End all open runs; a second call does nothing."""
        self._system.end()
        if self._runs is not None:
            self._runs.end(status)
        self._runs = self._record = None
        set_active_run(None)
        atexit.unregister(self._end_killed)

    def _end_killed(self) -> None:
        with _quietly():
            self._end("KILLED")
