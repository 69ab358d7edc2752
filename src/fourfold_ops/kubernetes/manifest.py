"""What is sent to Kubernetes, as plain dictionaries: request → manifest. Pure, and tested as text (tests/.../golden)."""

from fourfold_ops.errors import BAD_CONFIGURATION, STOPPED
from fourfold_ops.kubernetes.job_spec import JobSpec
from fourfold_ops.kubernetes.objects import JOB_LABEL, QUEUE_LABEL
from fourfold_ops.kubernetes.pod import CONTAINER, Manifest, pod
from fourfold_ops.kubernetes.settings import KubernetesSettings


def job(spec: JobSpec, settings: KubernetesSettings) -> Manifest:
    """Return the Job."""
    queue = {QUEUE_LABEL: spec.request.queue} if spec.request.queue else {}
    metadata: Manifest = {
        "name": spec.name,
        "namespace": settings.namespace,
        "labels": {**spec.labels, **queue},
        "annotations": dict(spec.annotations),
    }
    if spec.owner:
        metadata["ownerReferences"] = [dict(spec.owner)]
    body: Manifest = {
        **_how_many(spec),
        "podReplacementPolicy": "Failed",  # a pod's successor starts when it is really gone: nobody owns a rank or a part twice
        "podFailurePolicy": {"rules": failure_rules()},
        "ttlSecondsAfterFinished": settings.ttl_seconds,
        "template": {
            "metadata": {"labels": dict(spec.labels), "annotations": dict(spec.annotations)},
            "spec": pod(spec, settings),
        },
    }
    if spec.request.deadline_seconds:
        body["activeDeadlineSeconds"] = spec.request.deadline_seconds
    return {"apiVersion": "batch/v1", "kind": "Job", "metadata": metadata, "spec": body}


def _how_many(spec: JobSpec) -> Manifest:
    retries = spec.request.retries or 0
    if spec.parts:
        return {
            "completionMode": "Indexed",
            "completions": len(spec.parts),
            "parallelism": min(spec.request.parallelism or len(spec.parts), len(spec.parts)),
            "backoffLimitPerIndex": retries,  # a part that fails again and again does not stop the others
        }
    if spec.num_nodes > 1:
        return {
            "completionMode": "Indexed",
            "completions": spec.num_nodes,
            "parallelism": spec.num_nodes,
            # One failure costs one pod, since the others' launchers stay (`gang`). Pods whose containers are killed in the same
            # moment, by memory limits say, count one each: the Job knows pods, not gangs.
            "backoffLimit": retries,
        }
    return {"completions": 1, "parallelism": 1, "backoffLimit": retries}


def failure_rules() -> list[Manifest]:
    """Return what becomes of a pod that failed; the first rule that fits counts, and where none does a retry is used up."""
    return [
        {  # trying again would fail again
            "action": "FailJob",
            "onExitCodes": {"containerName": CONTAINER, "operator": "In", "values": list(BAD_CONFIGURATION)},
        },
        {  # pre-empted, evicted, node gone: no failure of the step
            "action": "Ignore",
            "onPodConditions": [{"type": "DisruptionTarget", "status": "True"}],
        },
        {  # stopped from outside with SIGTERM, saved or not
            "action": "Ignore",
            "onExitCodes": {"containerName": CONTAINER, "operator": "In", "values": list(STOPPED)},
        },
    ]


def service(spec: JobSpec, settings: KubernetesSettings, job_uid: str) -> Manifest:
    """Return the headless Service that gives the pods of a Job names: NAME-INDEX.NAME. It goes when the Job goes."""
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
            "publishNotReadyAddresses": True,  # the pods find each other before any of them is ready
            "ports": [
                {"name": "rendezvous", "port": settings.port, "protocol": "TCP"},
                {"name": "gang", "port": settings.port + 1, "protocol": "TCP"},
            ],
        },
    }
