"""The lines that a user reads. The objects are as a Kubernetes 1.34 server sends them, cut down to what is looked at."""

import pytest

from fourfold_ops.kubernetes.progress import Progress, after
from fourfold_ops.kubernetes.verdicts import (
    disruption,
    failure,
    forbidden,
    pod_failure,
    python_error,
    refused,
    telling_pod,
    waiting,
)

AGAIN = "kedro run --env=site --runner=kubernetes"
HALFWAY = Progress("", 1840, 4500, "steps", 3.2, 1800)


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
        "spec": {"nodeName": node, "containers": [{"image": "img", "resources": {"limits": {"cpu": "8", "memory": "64Gi"}}}]},
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


def line(found, title="pretraining/train"):
    return found.line(title)


def test_out_of_memory_says_the_limit_the_step_and_how_to_go_on():
    found = failure(job(), [pod(code=137, reason="OOMKilled")], HALFWAY, AGAIN)
    assert line(found) == (
        "pretraining/train: OOMKilled (exit 137) on node-0 at step 1840 of 4500; limit 64Gi; last checkpoint 1800; "
        f"raise memory in kubernetes.yml; resume with: {AGAIN}."
    )


def test_a_python_error_is_the_evidence_of_a_failure():
    message = "Traceback (most recent call last):\n  File x\nValueError: The rate is too high. Lower it.\n"
    found = failure(job(), [pod(code=1, message=message)], Progress(), AGAIN)
    assert line(found) == (
        f"pretraining/train: failed (exit 1) on node-0; ValueError: The rate is too high. Lower it; resume with: {AGAIN}."
    )


def test_bad_configuration_is_told_from_failure_and_not_resumed():
    message = "\x1b[31mFailed: Parameters are not valid: a.b is an unknown key. [details: data/run.log]\x1b[0m"
    found = failure(job("PodFailurePolicy"), [pod(code=78, message=message)], Progress(), AGAIN)
    assert found.kind == "configuration"
    assert line(found) == (
        "pretraining/train: bad configuration (exit 78, not retried) on node-0; Failed: Parameters are not valid: "
        "a.b is an unknown key; correct it and run again."
    )


def test_a_deadline_names_itself():
    found = failure(job("DeadlineExceeded", activeDeadlineSeconds=60), [pod(code=143)], HALFWAY, AGAIN)
    assert line(found).startswith(
        "pretraining/train: over its deadline of 60 s; step 1840 of 4500; last checkpoint 1800; raise dead"
    )


@pytest.mark.parametrize(
    ("reason", "words"),
    [
        ("PreemptionByScheduler", "pre-empted by a pod of higher priority"),
        ("DeletionByTaintManager", "evicted: its node was tainted or lost"),
        ("EvictionByEvictionAPI", "drained"),
        ("DeletionByPodGC", "lost with its node"),
        ("SomethingNew", "taken away (SomethingNew)"),
    ],
)
def test_who_took_a_pod_away_is_said_in_words(reason, words):
    taken = pod(code=143, conditions=[{"type": "DisruptionTarget", "status": "True", "reason": reason}])
    assert words in disruption(taken)
    assert pod_failure(taken, Progress(), AGAIN).kind == "disrupted"
    assert disruption(pod(code=1)) == ""


def test_failed_parts_are_listed_and_only_they_run_again():
    found = job("FailedIndexes", backoffLimitPerIndex=3)
    found["status"]["failedIndexes"] = "1,3"
    assert line(failure(found, [pod(code=1, message="ValueError: bad shard")], Progress(), AGAIN), "label") == (
        f"label: parts 1,3 failed: failed (exit 1) on node-0; ValueError: bad shard; only those run again with: {AGAIN}."
    )


def test_of_pods_that_fell_together_the_first_one_is_named_and_memory_before_lost_connections():
    lost = pod("rank-1", code=1, message="RuntimeError: Connection closed by peer", ended="2026-01-01T00:00:09Z")
    root = pod("rank-0", code=1, message="ValueError: root", ended="2026-01-01T00:00:05Z")
    old = pod("attempt-1", code=137, reason="OOMKilled", ended="2025-12-31T00:00:05Z")
    assert telling_pod([lost, root, old])["metadata"]["name"] == "rank-0"
    killed = pod("rank-2", code=137, reason="OOMKilled", ended="2026-01-01T00:00:11Z")
    assert telling_pod([lost, root, killed])["metadata"]["name"] == "rank-2"
    assert telling_pod([pod(phase="Running")]) is None


def test_an_evicted_pod_says_what_the_node_lacked():
    gone = pod(code=None, reason="Evicted")
    gone["status"] |= {"reason": "Evicted", "message": "The node was low on resource: ephemeral-storage."}
    assert "evicted on node-0; The node was low on resource: ephemeral-storage" in line(pod_failure(gone, Progress(), AGAIN))


def test_a_job_whose_pods_are_gone_says_what_the_job_knows():
    assert "its pods are gone; Job has reached the specified backoff limit (BackoffLimitExceeded)" in line(
        failure(job(), [], Progress(), AGAIN)
    )


# --- waiting ---

DISRUPTED = {"type": "DisruptionTarget", "status": "True", "reason": "DeletionByTaintManager"}
PENDING = {"metadata": {"name": "train-0a1b"}, "spec": {}, "status": {}}


def unscheduled(message):
    return pod(
        phase="Pending",
        node="",
        conditions=[{"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": message}],
    )


def test_a_resource_that_no_node_has_is_named_with_what_was_asked():
    message = "0/1 nodes are available: 1 Insufficient nvidia.com/gpu. no new claims to deallocate, preemption: 0/1 nodes."
    found = waiting(PENDING, [unscheduled(message)], {})
    assert found.waits_for_place
    assert line(found, "t") == (
        "t: no node has room: 1 Insufficient nvidia.com/gpu; asked for 8 cpu, 64Gi memory; "
        "ask for less in kubernetes.yml, or add a node."
    )


def test_a_volume_claim_that_is_not_there_or_not_bound_is_named():
    for message in ('persistentvolumeclaim "data" not found', "pod has unbound immediate PersistentVolumeClaims"):
        found = waiting(PENDING, [unscheduled(message)], {})
        assert (found.kind, found.evidence) == ("volume", message) and not found.waits_for_place


@pytest.mark.parametrize("reason", ["ErrImagePull", "ImagePullBackOff", "ErrImageNeverPull", "InvalidImageName"])
def test_an_image_that_cannot_be_pulled_is_named(reason):
    found = pod(phase="Pending")
    found["status"]["containerStatuses"][0] |= {
        "image": "registry/x",
        "state": {"waiting": {"reason": reason, "message": "not found"}},
    }
    verdict = waiting(PENDING, [found], {})
    assert verdict.kind == "image"
    assert f"image registry/x cannot be pulled ({reason}) on node-0; not found; correct `image`" in line(verdict)


def test_a_missing_secret_is_named():
    found = pod(phase="Pending")
    state = {"waiting": {"reason": "CreateContainerConfigError", "message": 'secret "mlflow" not found'}}
    found["status"]["containerStatuses"][0]["state"] = state
    assert 'secret "mlflow" not found; create the secret' in line(waiting(PENDING, [found], {}))


def test_a_volume_that_cannot_be_mounted_is_told_from_the_pods_events():
    found = waiting(
        PENDING, [pod(phase="Pending")], {"p": [{"reason": "FailedMount", "message": "MountVolume.SetUp failed for volume"}]}
    )
    assert found.kind == "volume" and "MountVolume.SetUp failed" in found.evidence


def test_a_quota_that_refuses_the_pod_is_named():
    message = (
        'Error creating: pods "train-0a1b-x" is forbidden: exceeded quota: team, requested: requests.nvidia.com/gpu=1, '
        "used: requests.nvidia.com/gpu=2, limited: requests.nvidia.com/gpu=2"
    )
    found = waiting(PENDING, [], {"train-0a1b": [{"reason": "FailedCreate", "message": message}]})
    assert found.kind == "quota" and found.waits_for_place
    assert line(found, "t").startswith("t: quota team refuses the pod; requested: requests.nvidia.com/gpu=1, used: ")


@pytest.mark.parametrize(
    ("message", "what"),
    [
        (
            'pods "x" is forbidden: violates PodSecurity "restricted:latest": restricted volume types',
            "Pod Security refuses the pod",
        ),
        (
            'pods "x" is forbidden: error looking up service account ns/a: serviceaccount "a" not found',
            "service account is missing",
        ),
        ('pods "x" is forbidden: no PriorityClass with name high was found', "priority class is missing"),
        ("something else", "the cluster refuses the pod"),
    ],
)
def test_what_admission_refuses_is_told_apart(message, what):
    assert what in line(refused(message))


def test_a_job_in_a_queue_says_so_and_what_kueue_says():
    queued = {
        "metadata": {"name": "train-0a1b", "labels": {"kueue.x-k8s.io/queue-name": "research"}},
        "spec": {"suspend": True},
    }
    events = {"job-train-0a1b-7": [{"reason": "Pending", "message": "couldn't assign flavors: insufficient unused quota"}]}
    found = waiting(queued, [], events)
    assert found.waits_for_place
    assert line(found, "t") == "t: waits in queue 'research'; couldn't assign flavors: insufficient unused quota."


def test_forbidden_says_which_verb_on_which_resource_as_whom():
    message = (
        'jobs.batch is forbidden: User "system:serviceaccount:ns:default" cannot create resource "jobs" in API group "batch"'
    )
    assert line(forbidden("create", "jobs", "ns", message), "t") == (
        "t: not allowed to create jobs in namespace 'ns'; as system:serviceaccount:ns:default; "
        "bind the Role of k8s/base to it, or use another context."
    )


def test_a_pod_that_does_not_end_holds_up_its_successor_and_is_named():
    leaving = pod("old", phase="Running", node="node-7", conditions=[DISRUPTED])
    leaving["metadata"]["deletionTimestamp"] = "2026-01-01T00:00:00Z"
    found = waiting(PENDING, [leaving], {})
    assert found.waits_for_place
    assert line(found, "t").startswith("t: waits for the end of pod old on node-7; evicted: its node was tainted or lost")


def test_nothing_is_explained_where_nothing_waits():
    assert waiting(PENDING, [pod(phase="Running")], {}) is None
    assert waiting(PENDING, [], {}) is None
    deleted = unscheduled("0/1 nodes are available: 1 Insufficient cpu.")
    deleted["metadata"]["deletionTimestamp"] = "gone"
    assert waiting(PENDING, [deleted], {}) is None


# --- progress ---


def test_progress_is_read_from_the_lines_that_long_work_logs():
    lines = [
        "12:00:01 INFO    pretraining: going on from step 1800 of 4500.",
        "12:00:16 INFO    pretraining: 1840/4500 steps, 3.21 steps/s, 829 s left, loss 2.5",
        "12:00:17 INFO    pretraining: checkpoint at step 1850.",
        "12:00:18 INFO    something else",
    ]
    progress = Progress()
    for text in lines:
        progress = after(text, progress)
    assert progress == Progress("something else", 1840, 4500, "steps", 3.21, 1850)
    assert str(progress) == "1840/4500 steps, 3.21/s"


def test_the_error_of_a_nested_traceback_is_the_last_one():
    text = "KeyError: 1\nDuring handling\nmodule.errors.CustomError: second\ntail"
    assert python_error(text) == "module.errors.CustomError: second"
    assert python_error("Failed in a stage, node b: It broke. [details: x]") == "It broke."
    assert python_error("") == ""
