"""The driver itself as a Job, for runs that outlive a laptop. Pure."""

import json
from collections.abc import Sequence
from typing import Any

from fourfold_ops import handover
from fourfold_ops.errors import EXIT_FAILED
from fourfold_ops.kubernetes import names
from fourfold_ops.kubernetes.hook import SETTINGS_VARIABLE
from fourfold_ops.kubernetes.job_spec import JobSpec
from fourfold_ops.kubernetes.manifest import job
from fourfold_ops.kubernetes.plan import DRIVER_JOB, DRIVER_UID, RunPlan
from fourfold_ops.kubernetes.settings import BUILT_IN, KubernetesSettings

RUNNER = "fourfold_ops.kubernetes.KubernetesRunner"
CONTROLLER = "metadata.labels['batch.kubernetes.io/controller-uid']"  # the Job's uid, as its pods know it
RETRIES = 10  # a driver that comes back takes up what it left
# The Jobs that a driver creates go when its Job goes. Another driver may have taken them up by then: so it stays for long.
TTL_SECONDS = 30 * 24 * 3600


def driver_spec(plan: RunPlan, arguments: Sequence[str], attempt: int = 1) -> JobSpec:
    """Return the driver's Job: `kedro run ARGUMENTS` with our runner, under the service account that may create Jobs.

    `attempt` counts the drivers that the run has had.
    """
    request = plan.settings.driver.over(plan.settings.default).over(BUILT_IN)
    name = f"driver-{plan.name}-{attempt}"
    handed = plan.settings.model_dump(
        mode="json", exclude_unset=True, exclude={"context"}
    )  # a name of this machine's kubeconfig
    env = {
        DRIVER_JOB: name,
        SETTINGS_VARIABLE: json.dumps(handed, sort_keys=True),
        handover.GIT_TAGS: json.dumps(plan.git_tags, sort_keys=True),  # an image has no .git
    }
    return JobSpec(
        name=name,
        command=(*plan.settings.command, "run", *arguments, f"--runner={RUNNER}"),
        request=request.model_copy(update={"retries": plan.settings.driver.retries or RETRIES, "nodes": 1, "shards": 1}),
        labels=names.labels(plan.project, plan.name, role="driver"),
        annotations={names.TITLE: "driver", names.COMMAND: plan.again},
        env=env,
        service_account=plan.settings.driver_service_account,
        talks_to_api=True,
    )


def driver_job(spec: JobSpec, settings: KubernetesSettings) -> dict[str, Any]:
    """Return the manifest. The driver knows its own Job, so that the Jobs it creates go when it goes."""
    found = job(spec, settings)
    found["spec"]["ttlSecondsAfterFinished"] = max(settings.ttl_seconds, TTL_SECONDS)
    # A driver that has failed has said why; it comes back only where it was killed or taken away.
    found["spec"]["podFailurePolicy"]["rules"][0]["onExitCodes"]["values"].insert(0, EXIT_FAILED)
    container = found["spec"]["template"]["spec"]["containers"][0]
    container["env"].append({"name": DRIVER_UID, "valueFrom": {"fieldRef": {"fieldPath": CONTROLLER}}})
    return found
