"""Runs a pipeline's steps as Kubernetes Jobs. `kubernetes.yml` says where; it never changes what is computed."""

from fourfold_ops.kubernetes.hook import KubernetesHook
from fourfold_ops.kubernetes.runner import KubernetesRunner
from fourfold_ops.kubernetes.step_runner import StepRunner

__all__ = ["KubernetesHook", "KubernetesRunner", "StepRunner"]
