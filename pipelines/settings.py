"""Set-up of Kedro for this project. https://docs.kedro.org/en/stable/configure/configuration_basics/"""

import os

from fourfold_ops import handover
from fourfold_ops.hooks.last_run import LastRunHook
from fourfold_ops.hooks.location import ErrorLocationHook
from fourfold_ops.hooks.lock import LockHook
from fourfold_ops.hooks.parameters import ParametersHook
from fourfold_ops.hooks.preflight import PreflightHook
from fourfold_ops.hooks.ranks import RanksHook, is_first
from fourfold_ops.hooks.registry import RegistryHook
from fourfold_ops.hooks.stage_records import StageRecordsHook
from fourfold_ops.hooks.summary import SummaryHook
from fourfold_ops.hooks.threads import ThreadsHook
from fourfold_ops.hooks.timing import TimingHook
from fourfold_ops.hooks.tracking import TrackingHook
from fourfold_ops.hooks.versioning import VersioningHook
from fourfold_ops.kubernetes.plan.hook import KubernetesHook
from pipelines.plugins import PluginConfigLoader

# No library of this project may send usage data.
for variable in ("DO_NOT_TRACK", "DVC_NO_ANALYTICS", "MLFLOW_DISABLE_TELEMETRY", "NO_ALBUMENTATIONS_UPDATE"):
    os.environ.setdefault(variable, "true" if variable == "MLFLOW_DISABLE_TELEMETRY" else "1")
os.environ.setdefault("GX_ANALYTICS_ENABLED", "false")

# of several processes that torchrun started, only the first records; LockHook must be the last
RECORDING = (
    (
        TimingHook(),
        StageRecordsHook("pipelines.planning.PROJECT"),
        TrackingHook("pipelines.parameters.compute_facts"),
        VersioningHook("pipelines.sources.source_files"),
        RegistryHook(),
        SummaryHook("pipelines.planning.PROJECT"),
        LastRunHook("pipelines.planning.PROJECT"),
        PreflightHook("pipelines.preflight.check"),
        LockHook(),
    )
    if is_first()
    else ()
)
HOOKS = (
    ParametersHook("pipelines.parameters.Parameters"),
    ThreadsHook(),
    ErrorLocationHook(),
    RanksHook(),
    KubernetesHook(),
    *RECORDING,
)
# Kedro-Viz writes files for its interface; a step of another process's run has no interface and no place for them.
DISABLE_HOOKS_FOR_PLUGINS = ("kedro-telemetry", *(("kedro-viz",) if handover.received() else ()))

CONFIG_LOADER_CLASS = PluginConfigLoader
CONFIG_LOADER_ARGS = {
    "base_env": "base",
    "default_run_env": "local",
    # An environment (smoke, photos) names only what differs from base.
    "merge_strategy": {"parameters": "soft", "catalog": "soft", "tracking": "soft"},
    "config_patterns": {
        "tracking": ["tracking*", "tracking*/**"],
        "promotion": ["promotion*", "promotion*/**"],
        "reproduction": ["reproduction*", "reproduction*/**"],
    },
}
