"""Runs a pipeline's steps as Kubernetes Jobs. `kubernetes.yml` says where; it never changes what is computed."""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from fourfold_ops.kubernetes.driver.runner import KubernetesRunner
    from fourfold_ops.kubernetes.in_pod.step_runner import StepRunner
    from fourfold_ops.kubernetes.plan.hook import KubernetesHook

__all__ = ["KubernetesHook", "KubernetesRunner", "StepRunner"]
HOMES = {"KubernetesHook": "plan.hook", "KubernetesRunner": "driver.runner", "StepRunner": "in_pod.step_runner"}


def __getattr__(name: str) -> Any:
    """Import what is asked for only then: the launcher in a pod needs neither Kedro nor the driver."""
    if name not in HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{HOMES[name]}"), name)
