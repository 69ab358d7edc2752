"""Runs a pipeline's steps as Kubernetes Jobs. `kubernetes.yml` says where; it never changes what is computed."""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from fourfold_ops.kubernetes.hook import KubernetesHook
    from fourfold_ops.kubernetes.runner import KubernetesRunner
    from fourfold_ops.kubernetes.step_runner import StepRunner

__all__ = ["KubernetesHook", "KubernetesRunner", "StepRunner"]
HOMES = {"KubernetesHook": "hook", "KubernetesRunner": "runner", "StepRunner": "step_runner"}


def __getattr__(name: str) -> Any:
    """Import what is asked for only then: the launcher in a pod needs neither Kedro nor the driver."""
    if name not in HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{HOMES[name]}"), name)
