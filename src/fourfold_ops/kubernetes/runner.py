"""`kedro run --runner=kubernetes`: the steps that ask for it run as Jobs, the others here."""

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
from fourfold_ops.kubernetes.board import open_board
from fourfold_ops.kubernetes.client import Cluster
from fourfold_ops.kubernetes.conductor import Conductor
from fourfold_ops.kubernetes.errors import in_words
from fourfold_ops.kubernetes.hook import KubernetesHook
from fourfold_ops.kubernetes.plan import RunPlan, plan_run
from fourfold_ops.kubernetes.records import Records, registered_hook
from fourfold_ops.kubernetes.standing import rows
from fourfold_ops.kubernetes.steps import Step

logger = logging.getLogger(__name__)


class KubernetesRunner(AbstractRunner):
    """Runs remote steps as Kubernetes Jobs.

    `site`: the folder of conf/ whose `kubernetes.yml` says where; default: the environment of the run.
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
            raise UserError("KubernetesRunner needs KubernetesHook.", "Add fourfold_ops.kubernetes.KubernetesHook() to HOOKS.")
        settings = hook.settings(self._site)
        plan = plan_run(pipeline, catalog, settings, hook.origin(), self._site)
        records = Records(hook_manager, plan, {node.name: node for node in pipeline.nodes})
        if not any(step.remote for step in plan.steps):
            logger.warning("No step of this run is remote: nothing has a tag or a name that kubernetes.yml knows.")
        cluster = Cluster(settings.namespace, settings.context, settings.api_seconds)
        with in_words(plan.name):
            records.take_up(cluster)
        with open_board(rows(plan)) as board:
            conductor = Conductor(plan, cluster, board, records, log_folder(plan))
            board.say(f"Run {plan.name} in namespace {settings.namespace} of {cluster.server}.")
            self._conduct(conductor, pipeline, catalog, hook_manager, run_id)
        calls = ", ".join(f"{count} × {call}" for call, count in sorted(cluster.calls.items()))
        logger.debug("Calls of the API server: %s.", calls)
        conductor.raise_failure()

    def _conduct(
        self, conductor: Conductor, pipeline: Pipeline, catalog: CatalogProtocol, hook_manager: Any, run_id: str | None
    ) -> None:
        """Run the driver's own steps in this thread, exactly as Kedro's SequentialRunner would, while the conductor drives."""
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

        conductor.start()
        try:
            for step in conductor.driver_nodes():
                try:
                    execute(step)
                except Exception as error:
                    conductor.driver_done(step, error)
                else:
                    conductor.driver_done(step)
            conductor.join()
        except KeyboardInterrupt:
            _cancel(conductor)
            raise


def _cancel(conductor: Conductor) -> None:
    """Take back what is in the cluster; a second Ctrl-C leaves at once."""
    name = conductor.plan.name + conductor.plan.site_option
    conductor.board.say("Stopping what this run has in the cluster (Ctrl-C again leaves at once).", logging.WARNING)
    conductor.cancel()
    try:
        conductor.join()
    except KeyboardInterrupt:
        with contextlib.suppress(Exception):
            conductor.board.__exit__()
        logger.error("Left at once: Jobs of this run may still be there. Remove them with: kedro k8s cancel %s", name)
        os._exit(EXIT_INTERRUPTED)  # threads that wait for the server must not hold the shell
    stopped = ", ".join(conductor.cancelled) or "nothing was running there"
    conductor.board.say(f"Stopped in the cluster: {stopped}.", logging.WARNING)


def log_folder(plan: RunPlan) -> Path:
    """Return where the driver keeps the logs of a run's pods."""
    return plan.origin.project / (plan.log_folder or f".k8s-logs/{plan.name}")
