"""Runs the steps of a Kedro pipeline as Kubernetes Jobs; `kubernetes.yml` sets where, never what is computed.

Sub-packages, each of which imports only those below it:

- `cli`: the commands `kedro k8s ...` and `kedro submit`
- `driver`: the runner, which submits Jobs, follows them and displays their state
- `manifests`: Kubernetes objects (plain dictionaries) from the descriptions of Jobs
- `plan`: steps of a pipeline, their resources and names, and descriptions of their Jobs
- `verdicts`: explanations, in one line, of why a step waits or has failed
- `cluster`: client of the API server, cache of watched objects, logs of pods
- `in_pod`: what runs in the pods of a step; imports none of the others

To follow a run through the code: `driver/runner.py`, `plan/run_plan.py`, `manifests/job.py`, `driver/orchestrator.py`,
`verdicts/failed.py`.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from fourfold_ops.kubernetes.driver.runner import KubernetesRunner
    from fourfold_ops.kubernetes.in_pod.step_runner import StepRunner
    from fourfold_ops.kubernetes.plan.hook import KubernetesHook

__all__ = ["KubernetesHook", "KubernetesRunner", "StepRunner"]
MODULES = {"KubernetesHook": "plan.hook", "KubernetesRunner": "driver.runner", "StepRunner": "in_pod.step_runner"}


def __getattr__(name: str) -> Any:
    """Import classes on first use: the launcher in a pod needs neither Kedro nor the driver."""
    if name not in MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{MODULES[name]}"), name)
