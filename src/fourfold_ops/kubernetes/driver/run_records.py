"""Connects the run in the cluster with the runs in MLflow: one parent, and one child per stage."""

import logging
from pathlib import Path
from typing import Any, TypeVar

from kedro.pipeline.node import Node

from fourfold_ops.hooks.tracking import TrackingHook
from fourfold_ops.kubernetes.cluster.client import Cluster
from fourfold_ops.kubernetes.plan import names
from fourfold_ops.kubernetes.plan.run_plan import RunPlan
from fourfold_ops.kubernetes.plan.steps import Step

logger = logging.getLogger(__name__)
Hook = TypeVar("Hook")


def registered_hook(hook_manager: Any, hook_type: type[Hook]) -> Hook | None:
    """Return the registered hook of a type, None if there is none."""
    plugins = hook_manager.get_plugins() if hasattr(hook_manager, "get_plugins") else ()
    return next((plugin for plugin in plugins if isinstance(plugin, hook_type)), None)


class RunRecords:
    """Records steps with the `TrackingHook`; records nothing if the project has none."""

    def __init__(self, hook_manager: Any, plan: RunPlan, nodes: dict[str, Node]) -> None:
        self._hook = registered_hook(hook_manager, TrackingHook)
        self._plan, self._nodes = plan, nodes

    def resume(self, cluster: Cluster) -> None:
        """Continue the MLflow run of an earlier driver whose Jobs still exist, unless that run has ended."""
        if self._hook is None:
            return
        ours = {self._plan.step_job(step).name for step in self._plan.steps if step.remote}  # of this code and parameters
        jobs = [job for job in cluster.all("jobs", names.selector(run=self._plan.name)) if job["metadata"]["name"] in ours]
        jobs.sort(key=lambda job: str(job["metadata"]["creationTimestamp"]), reverse=True)
        for job in jobs:
            parent = job["metadata"].get("annotations", {}).get(names.PARENT)
            if parent and self._hook.continue_run(parent):
                logger.info("Continuing the MLflow run %s.", parent)
                return

    def hand_over(self, step: Step) -> dict[str, Any]:
        """Start the MLflow runs of the step's stages and return them as fields of the Handover."""
        if self._hook is None:
            return {}
        return self._hook.hand_over([self._nodes[name] for name in step.nodes])

    def end_step(self, step: Step, error: str) -> None:
        """Record the end of a step; `error` is "" if it succeeded."""
        if self._hook is not None:
            self._hook.remote_nodes_over([self._nodes[name] for name in step.nodes], error)

    def keep_logs(self, step: Step, files: list[Path]) -> None:
        """Store the logs of the pods as artifacts `logs/STEP/POD.txt` in the run of the stage."""
        if self._hook is not None and files:
            try:
                self._hook.keep_files(self._nodes[step.nodes[0]], files, f"logs/{step.name}")
            except Exception as error:  # a log that cannot be stored must not stop the run
                logger.warning("The logs of %s could not be stored: %s", step.title, error)
