"""Kedro settings of the miniature project."""

import os

from fourfold_ops.hooks.location import ErrorLocationHook
from fourfold_ops.hooks.tracking import TrackingHook
from fourfold_ops.hooks.versioning import VersioningHook
from fourfold_ops.kubernetes import KubernetesHook

# Without tracking the benchmark measures the runner alone: MLflow with its store takes 170 MB.
TRACKED = () if os.environ.get("MINIATURE_UNTRACKED") else (TrackingHook(), VersioningHook())
HOOKS = (ErrorLocationHook(), *TRACKED, KubernetesHook())
DISABLE_HOOKS_FOR_PLUGINS = ("kedro-telemetry", "kedro-viz")
CONFIG_LOADER_ARGS = {
    "base_env": "base",
    "default_run_env": "local",
    "merge_strategy": {"parameters": "soft", "catalog": "soft", "tracking": "soft"},
    "config_patterns": {"tracking": ["tracking*"], "kubernetes": ["kubernetes*"]},
}
