"""Manifest of the driver as a Job (`kedro submit`), for runs that do not depend on a laptop."""

import json
from collections.abc import Sequence
from typing import Any

from fourfold_ops import handover
from fourfold_ops.errors import EXIT_FAILED
from fourfold_ops.kubernetes.manifests.job import job
from fourfold_ops.kubernetes.plan import names
from fourfold_ops.kubernetes.plan.hook import SETTINGS_VARIABLE
from fourfold_ops.kubernetes.plan.job_spec import JobSpec
from fourfold_ops.kubernetes.plan.run_plan import DRIVER_JOB, DRIVER_UID, RunPlan
from fourfold_ops.kubernetes.plan.settings import BUILT_IN, KubernetesSettings

RUNNER = "fourfold_ops.kubernetes.KubernetesRunner"
CONTROLLER = "metadata.labels['batch.kubernetes.io/controller-uid']"  # uid of the Job, from a label of its pods
RETRIES = 10  # a restarted driver resumes the run
# Deleting the Job of a driver deletes the Jobs that it created, which another driver may have adopted: keep it long.
TTL_SECONDS = 30 * 24 * 3600


def driver_spec(plan: RunPlan, arguments: Sequence[str], attempt: int = 1) -> JobSpec:
    """Return the Job of the driver: `kedro run ARGUMENTS` with our runner.

    Args:
        plan: The plan of the run.
        arguments: Command-line arguments of `kedro run`, without a runner.
        attempt: Number of this driver among those of the run, from 1.
    """
    resources = plan.settings.driver.over(plan.settings.default).over(BUILT_IN)
    name = f"driver-{plan.name}-{attempt}"
    settings = plan.settings.model_dump(
        mode="json", exclude_unset=True, exclude={"context"}
    )  # the context is a name in the kubeconfig of this machine
    env = {
        DRIVER_JOB: name,
        SETTINGS_VARIABLE: json.dumps(settings, sort_keys=True),
        handover.IMAGE: resources.image or plan.settings.image,
        handover.GIT_TAGS: json.dumps(plan.git_tags, sort_keys=True),  # an image has no .git
    }
    return JobSpec(
        name=name,
        command=(*plan.settings.command, "run", *arguments, f"--runner={RUNNER}"),
        resources=resources.model_copy(update={"retries": plan.settings.driver.retries or RETRIES, "nodes": 1, "shards": 1}),
        labels=names.labels(plan.project, plan.name, role="driver"),
        annotations={names.TITLE: "driver", names.COMMAND: plan.again},
        env=env,
        service_account=plan.settings.driver_service_account,
        talks_to_api=True,
    )


def driver_job(spec: JobSpec, settings: KubernetesSettings) -> dict[str, Any]:
    """Return the manifest. The driver gets the uid of its Job, which then owns the Jobs that the driver creates."""
    manifest = job(spec, settings)
    manifest["spec"]["ttlSecondsAfterFinished"] = max(settings.ttl_seconds, TTL_SECONDS)
    # A driver that exits with an error has reported the cause. Only one that was killed or evicted is restarted.
    manifest["spec"]["podFailurePolicy"]["rules"][0]["onExitCodes"]["values"].insert(0, EXIT_FAILED)
    container = manifest["spec"]["template"]["spec"]["containers"][0]
    container["env"].append({"name": DRIVER_UID, "valueFrom": {"fieldRef": {"fieldPath": CONTROLLER}}})
    return manifest
