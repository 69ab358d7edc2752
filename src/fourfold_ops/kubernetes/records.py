"""Ties the run in the cluster to the run in MLflow: one parent, one child per stage, wherever their nodes run."""

import logging
from pathlib import Path
from typing import Any, TypeVar

from kedro.pipeline.node import Node

from fourfold_ops.hooks.tracking import TrackingHook
from fourfold_ops.kubernetes import names
from fourfold_ops.kubernetes.client import Cluster
from fourfold_ops.kubernetes.plan import RunPlan
from fourfold_ops.kubernetes.steps import Step

logger = logging.getLogger(__name__)
Hook = TypeVar("Hook")


def registered_hook(hook_manager: Any, kind: type[Hook]) -> Hook | None:
    """Return the hook of a kind that the run has; None without one, or without hooks."""
    plugins = hook_manager.get_plugins() if hasattr(hook_manager, "get_plugins") else ()
    return next((plugin for plugin in plugins if isinstance(plugin, kind)), None)


class Records:
    """The conductor's view of `TrackingHook`; without one (tracking is off) it records nothing."""

    def __init__(self, hook_manager: Any, plan: RunPlan, nodes: dict[str, Node]) -> None:
        self._hook = registered_hook(hook_manager, TrackingHook)
        self._plan, self._nodes = plan, nodes

    def take_up(self, cluster: Cluster) -> None:
        """Go on with the recorded run of an earlier driver whose Jobs are still there, unless it came to its end."""
        if self._hook is None:
            return
        ours = {self._plan.step_job(step).name for step in self._plan.steps if step.remote}  # of this code and parameters
        jobs = [job for job in cluster.all("jobs", names.selector(run=self._plan.name)) if job["metadata"]["name"] in ours]
        jobs.sort(key=lambda job: str(job["metadata"]["creationTimestamp"]), reverse=True)
        for job in jobs:
            parent = job["metadata"].get("annotations", {}).get(names.PARENT)
            if parent and self._hook.continue_run(parent):
                logger.info("Going on with the recorded run %s.", parent)
                return

    def hand_over(self, step: Step) -> dict[str, Any]:
        """Open the runs of the step's stages, and return where it has to report."""
        if self._hook is None:
            return {}
        return self._hook.hand_over([self._nodes[name] for name in step.nodes])

    def over(self, step: Step, error: str) -> None:
        """Note that a step is over."""
        if self._hook is not None:
            self._hook.remote_nodes_over([self._nodes[name] for name in step.nodes], error)

    def keep(self, step: Step, files: list[Path]) -> None:
        """Keep the logs of its pods as artifacts `logs/STEP/POD.txt` of the stage's run."""
        if self._hook is not None and files:
            try:
                self._hook.keep_files(self._nodes[step.nodes[0]], files, f"logs/{step.name}")
            except Exception as error:  # a log that cannot be kept must not stop the work that it is about
                logger.warning("The logs of %s could not be kept: %s", step.title, error)
