"""Pods and Jobs as a Kubernetes 1.34 server sends them, reduced to the fields that verdicts read."""

from fourfold_ops.kubernetes.verdicts.progress import Progress

AGAIN = "kedro run --env=site --runner=kubernetes"
RESOURCES = {"requests": {"cpu": "8", "memory": "64Gi"}, "limits": {"cpu": "16", "memory": "64Gi"}}
HALFWAY = Progress("", 1840, 4500, "steps", 3.2, 1800)
DISRUPTED = {"type": "DisruptionTarget", "status": "True", "reason": "DeletionByTaintManager"}
PENDING = {"metadata": {"name": "train-0a1b"}, "spec": {}, "status": {}}


def pod(
    name="p",
    phase="Failed",
    code=None,
    reason="Error",
    message="",
    node="node-0",
    ended="2026-01-01T00:00:10Z",
    conditions=(),
    **status,
):
    state = (
        {} if code is None else {"terminated": {"exitCode": code, "reason": reason, "message": message, "finishedAt": ended}}
    )
    return {
        "metadata": {"name": name, "creationTimestamp": "2026-01-01T00:00:00Z"},
        "spec": {"nodeName": node, "containers": [{"image": "img", "resources": RESOURCES}]},
        "status": {
            "phase": phase,
            "conditions": list(conditions),
            "containerStatuses": [{"image": "img", "state": state}],
            **status,
        },
    }


def job(reason="BackoffLimitExceeded", kind="Failed", **spec):
    conditions = [{"type": kind, "status": "True", "reason": reason, "message": "Job has reached the specified backoff limit"}]
    return {"metadata": {"name": "train-0a1b"}, "spec": spec, "status": {"conditions": conditions}}


def unscheduled(message):
    return pod(
        phase="Pending",
        node="",
        conditions=[{"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": message}],
    )


def line(found, title="pretraining/train"):
    return found.line(title)
