"""Manifests of Jobs and Services: plain dictionaries, compared with golden YAML in the tests."""

from fourfold_ops.errors import BAD_CONFIGURATION, STOPPED
from fourfold_ops.kubernetes.cluster.objects import JOB_LABEL, QUEUE_LABEL
from fourfold_ops.kubernetes.manifests.pod import CONTAINER, Manifest, pod
from fourfold_ops.kubernetes.plan.job_spec import JobSpec
from fourfold_ops.kubernetes.plan.settings import KubernetesSettings


def job(spec: JobSpec, settings: KubernetesSettings) -> Manifest:
    """Return the manifest of a Job."""
    queue = {QUEUE_LABEL: spec.resources.queue} if spec.resources.queue else {}
    metadata: Manifest = {
        "name": spec.name,
        "namespace": settings.namespace,
        "labels": {**spec.labels, **queue},
        "annotations": dict(spec.annotations),
    }
    if spec.owner:
        metadata["ownerReferences"] = [dict(spec.owner)]
    body: Manifest = {
        **_completions(spec),
        "podReplacementPolicy": "Failed",  # start a successor only when a pod has ended: no rank or part runs twice
        "podFailurePolicy": {"rules": failure_rules()},
        "ttlSecondsAfterFinished": settings.ttl_seconds,
        "template": {
            "metadata": {"labels": dict(spec.labels), "annotations": dict(spec.annotations)},
            "spec": pod(spec, settings),
        },
    }
    if spec.resources.deadline_seconds:
        body["activeDeadlineSeconds"] = spec.resources.deadline_seconds
    return {"apiVersion": "batch/v1", "kind": "Job", "metadata": metadata, "spec": body}


def _completions(spec: JobSpec) -> Manifest:
    retries = spec.resources.retries or 0
    if spec.parts:
        return {
            "completionMode": "Indexed",
            "completions": len(spec.parts),
            "parallelism": min(spec.resources.parallelism or len(spec.parts), len(spec.parts)),
            "backoffLimitPerIndex": retries,  # a part that keeps failing does not stop the others
        }
    if spec.num_nodes > 1:
        return {
            "completionMode": "Indexed",
            "completions": spec.num_nodes,
            "parallelism": spec.num_nodes,
            # One failure ends one pod, since the launchers of the others keep running (in_pod/restart_group). Containers that
            # are killed at the same moment, e.g. by their memory limits, count one retry each: the Job counts pods.
            "backoffLimit": retries,
        }
    return {"completions": 1, "parallelism": 1, "backoffLimit": retries}


def failure_rules() -> list[Manifest]:
    """Return the rules for failed pods. The first match counts; without one, the failure uses one retry."""
    return [
        {  # a bad configuration: a retry would fail too
            "action": "FailJob",
            "onExitCodes": {"containerName": CONTAINER, "operator": "In", "values": list(BAD_CONFIGURATION)},
        },
        {  # preempted, evicted or the node was lost: not a failure of the step
            "action": "Ignore",
            "onPodConditions": [{"type": "DisruptionTarget", "status": "True"}],
        },
        {  # stopped from outside with SIGTERM, with or without a saved checkpoint
            "action": "Ignore",
            "onExitCodes": {"containerName": CONTAINER, "operator": "In", "values": list(STOPPED)},
        },
    ]


def service(spec: JobSpec, settings: KubernetesSettings, job_uid: str) -> Manifest:
    """Return the headless Service that gives the pods of a Job host names, NAME-INDEX.NAME.

    It is deleted with the Job.
    """
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {
            "name": spec.name,
            "namespace": settings.namespace,
            "labels": dict(spec.labels),
            "ownerReferences": [
                {"apiVersion": "batch/v1", "kind": "Job", "name": spec.name, "uid": job_uid, "blockOwnerDeletion": False}
            ],
        },
        "spec": {
            "clusterIP": "None",
            "selector": {JOB_LABEL: spec.name},
            "publishNotReadyAddresses": True,  # host names resolve before any pod is ready
            "ports": [
                {"name": "rendezvous", "port": settings.port, "protocol": "TCP"},
                {"name": "gang", "port": settings.port + 1, "protocol": "TCP"},
            ],
        },
    }
