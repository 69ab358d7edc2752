"""The Kedro runner `--runner=kubernetes`: remote steps run as Jobs, the others in this process."""

import contextlib
import logging
import os
from concurrent.futures import Executor
from pathlib import Path
from typing import Any

from kedro.io import CatalogProtocol
from kedro.pipeline import Pipeline
from kedro.runner import AbstractRunner
from kedro.runner.task import Task

from fourfold_ops.errors import EXIT_INTERRUPTED, UserError
from fourfold_ops.kubernetes.cluster.client import Cluster
from fourfold_ops.kubernetes.driver.display import open_display
from fourfold_ops.kubernetes.driver.errors import readable_errors
from fourfold_ops.kubernetes.driver.orchestrator import Orchestrator
from fourfold_ops.kubernetes.driver.run_records import RunRecords, registered_hook
from fourfold_ops.kubernetes.driver.status import rows
from fourfold_ops.kubernetes.plan.hook import KubernetesHook
from fourfold_ops.kubernetes.plan.run_plan import RunPlan, plan_run
from fourfold_ops.kubernetes.plan.steps import Step

logger = logging.getLogger(__name__)


class KubernetesRunner(AbstractRunner):
    """Runs remote steps as Kubernetes Jobs.

    Args:
        is_async: Load and save data of the steps in this process asynchronously.
        site: Folder of conf/ with the `kubernetes.yml`; default: the environment of the run.
    """

    def __init__(self, is_async: bool = False, site: str | None = None) -> None:
        super().__init__(is_async=is_async)
        self._site = site

    def __str__(self) -> str:
        return "KubernetesRunner"

    def _get_executor(self, max_workers: int) -> Executor | None:
        return None

    def _run(self, pipeline: Pipeline, catalog: CatalogProtocol, hook_manager: Any = None, run_id: str | None = None) -> None:
        hook = registered_hook(hook_manager, KubernetesHook)
        if hook is None:
            raise UserError(
                "KubernetesRunner needs KubernetesHook.",
                "Add fourfold_ops.kubernetes.KubernetesHook() to HOOKS in settings.py.",
            )
        settings = hook.settings(self._site)
        plan = plan_run(pipeline, catalog, settings, hook.origin(), self._site)
        records = RunRecords(hook_manager, plan, {node.name: node for node in pipeline.nodes})
        if not any(step.remote for step in plan.steps):
            logger.warning("No step of this run is remote: kubernetes.yml has none of its tags or names.")
        cluster = Cluster(settings.namespace, settings.context, settings.api_seconds)
        with readable_errors(plan.name):
            records.resume(cluster)
        with open_display(rows(plan)) as display:
            orchestrator = Orchestrator(plan, cluster, display, records, log_folder(plan))
            display.show(f"Run {plan.name} in namespace {settings.namespace} of {cluster.server}.")
            self._drive(orchestrator, pipeline, catalog, hook_manager, run_id)
        calls = ", ".join(f"{count} × {call}" for call, count in sorted(cluster.calls.items()))
        logger.debug("Calls of the API server: %s.", calls)
        orchestrator.raise_failure()

    def _drive(
        self, orchestrator: Orchestrator, pipeline: Pipeline, catalog: CatalogProtocol, hook_manager: Any, run_id: str | None
    ) -> None:
        """Run the steps of the driver in this thread, as SequentialRunner does; the orchestrator runs the others."""
        nodes = {node.name: node for node in pipeline.nodes}

        def execute(step: Step) -> None:
            for name in step.nodes:
                Task(
                    node=nodes[name],
                    catalog=catalog,
                    hook_manager=hook_manager,
                    is_async=self._is_async,
                    run_id=run_id,
                ).execute()

        orchestrator.start()
        try:
            for step in orchestrator.driver_steps():
                try:
                    execute(step)
                except Exception as error:
                    orchestrator.driver_done(step, error)
                else:
                    orchestrator.driver_done(step)
            orchestrator.join()
        except KeyboardInterrupt:
            _cancel(orchestrator)
            raise


def _cancel(orchestrator: Orchestrator) -> None:
    """Delete the Jobs of the run; a second Ctrl-C exits immediately."""
    name = orchestrator.plan.name + orchestrator.plan.site_option
    orchestrator.display.show("Deleting the Jobs of this run (press Ctrl-C again to exit without waiting).", logging.WARNING)
    orchestrator.cancel()
    try:
        orchestrator.join()
    except KeyboardInterrupt:
        with contextlib.suppress(Exception):
            orchestrator.display.__exit__()
        logger.error("Exited without waiting: Jobs of this run may still exist. Delete them with: kedro k8s cancel %s", name)
        os._exit(EXIT_INTERRUPTED)  # do not wait for threads that wait for the server
    stopped = ", ".join(orchestrator.cancelled) or "no Job was running"
    orchestrator.display.show(f"Stopped in the cluster: {stopped}.", logging.WARNING)


def log_folder(plan: RunPlan) -> Path:
    """Return the folder in which the driver stores the logs of pods."""
    return plan.origin.project / (plan.log_folder or f".k8s-logs/{plan.name}")
