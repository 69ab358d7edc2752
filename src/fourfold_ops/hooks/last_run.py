"""Notes a whole run that succeeded, so that the next one can find out quickly that nothing is to be done."""

import os
import time
from collections.abc import Generator
from typing import Any

from kedro.framework.context import KedroContext
from kedro.framework.hooks import hook_impl
from kedro.pipeline import Pipeline

from fourfold_ops import handover
from fourfold_ops.last_run import LastRun, forget_last_run, inputs_digest, project_digest, results_digest
from fourfold_ops.loading import load_object
from fourfold_ops.planning.layout import DVC_YAML
from fourfold_ops.planning.plan import DATA
from fourfold_ops.stages import stage_of
from fourfold_ops.tracking.run import active_run
from fourfold_ops.tracking.run_tree import PARENT_TAG


class LastRunHook:
    """Writes `data/last_run.json` after a run of the default pipeline that everything recorded; see `LastRun`.

    Register it just before `LockHook`, so that it acts when all other hooks are done.
    """

    def __init__(self, project: str) -> None:
        """Create the hook for a `PlannedProject`, given by its dotted path."""
        self._project = project
        self._context: KedroContext
        self._inputs = ""

    @hook_impl
    def after_context_created(self, context: KedroContext) -> None:
        """Keep the context."""
        self._context = context

    @hook_impl
    def before_pipeline_run(self) -> None:
        """Forget the run before: this one may change its results and fail."""
        if not handover.received():
            root = self._context.project_path
            forget_last_run(root / DATA)
            self._inputs = inputs_digest(root, load_object(self._project), self._context.config_loader["parameters"])

    @hook_impl(wrapper=True)
    def after_pipeline_run(self, run_params: dict[str, Any], pipeline: Pipeline) -> Generator[None, Any, Any]:
        """Note the run when all other hooks are done; one that is not recorded raises an error before."""
        run, root = active_run(), self._context.project_path  # TrackingHook closes the run
        result = yield
        is_whole = not run_params.get("pipeline_names") and not handover.received() and "DVC_STAGE" not in os.environ
        if run.client is not None and is_whole and (root / DVC_YAML).is_file():
            parent = getattr(run.client, "impatient", run.client).get_run(run.run_id).data.tags.get(PARENT_TAG, run.run_id)
            makers = {name: stage_of(node) for node in pipeline.nodes for name in node.outputs}
            ended_ns = time.time_ns()
            digests = project_digest(root), self._inputs, results_digest(root)
            LastRun(parent, *digests, makers, ended_ns).write(root / DATA)
        return result
