"""Verdicts on waiting steps."""

import sys
from pathlib import Path

import pytest

from fourfold_ops.kubernetes.cluster.objects import is_unreachable
from fourfold_ops.kubernetes.verdicts.pending import waiting

sys.path.insert(0, str(Path(__file__).parent))
from shapes import DISRUPTED, PENDING, line, pod, unscheduled


def test_a_missing_resource_is_named_with_the_request():
    message = "0/1 nodes are available: 1 Insufficient nvidia.com/gpu. no new claims to deallocate, preemption: 0/1 nodes."
    found = waiting(PENDING, [unscheduled(message)], {})
    assert found.may_resolve
    assert line(found, "t") == (
        "t: no node fits: 1 Insufficient nvidia.com/gpu; requested 8 cpu, 64Gi memory; "
        "request less in kubernetes.yml, or add a node."
    )


def test_a_missing_or_unbound_volume_claim_is_named():
    for message in ('persistentvolumeclaim "data" not found', "pod has unbound immediate PersistentVolumeClaims"):
        found = waiting(PENDING, [unscheduled(message)], {})
        assert (found.kind, found.evidence) == ("volume", message) and not found.may_resolve


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


def test_a_failed_mount_is_read_from_the_events():
    found = waiting(
        PENDING, [pod(phase="Pending")], {"p": [{"reason": "FailedMount", "message": "MountVolume.SetUp failed for volume"}]}
    )
    assert found.kind == "volume" and "MountVolume.SetUp failed" in found.evidence


@pytest.mark.parametrize(
    ("reason", "message", "then"),
    [
        ("FailedScheduling", "0/1 nodes are available: pod has unbound immediate PersistentVolumeClaims.", "Scheduled"),
        ("FailedScheduling", "0/1 nodes are available: 1 Insufficient cpu.", None),  # the event of scheduling was missed
        ("FailedAttachVolume", "Multi-Attach error for volume", "SuccessfulAttachVolume"),
        ("FailedMount", "MountVolume.SetUp failed for volume", "Pulling"),
    ],
)
def test_outdated_events_are_no_reason_to_wait(reason, message, then):
    events = [{"reason": reason, "message": message, "lastTimestamp": "2026-01-01T00:00:00Z"}]
    events += [{"reason": then, "message": "", "lastTimestamp": "2026-01-01T00:00:00Z"}] if then else []
    assert waiting(PENDING, [pod(phase="Pending", node="node-0")], {"p": events}) is None


def test_a_quota_is_named():
    message = (
        'Error creating: pods "train-0a1b-x" is forbidden: exceeded quota: team, requested: requests.nvidia.com/gpu=1, '
        "used: requests.nvidia.com/gpu=2, limited: requests.nvidia.com/gpu=2"
    )
    found = waiting(PENDING, [], {"train-0a1b": [{"reason": "FailedCreate", "message": message}]})
    assert found.kind == "quota" and found.may_resolve
    assert line(found, "t").startswith("t: quota team refuses the pod; requested: requests.nvidia.com/gpu=1, used: ")


def test_a_queued_job_quotes_kueue():
    queued = {
        "metadata": {"name": "train-0a1b", "labels": {"kueue.x-k8s.io/queue-name": "research"}},
        "spec": {"suspend": True},
    }
    events = {"job-train-0a1b-7": [{"reason": "Pending", "message": "couldn't assign flavors: insufficient unused quota"}]}
    found = waiting(queued, [], events)
    assert found.may_resolve
    assert line(found, "t") == "t: waiting in queue 'research'; couldn't assign flavors: insufficient unused quota."


def test_a_queued_job_without_kueue_events_names_the_queue():
    queued = {
        "metadata": {"name": "train-0a1b", "labels": {"kueue.x-k8s.io/queue-name": "nowhere"}},
        "spec": {"suspend": True},
    }
    events = {"train-0a1b": [{"reason": "Suspended", "message": "Job suspended"}]}
    assert line(waiting(queued, [], events), "t") == (
        "t: waiting in queue 'nowhere'; Kueue has reported nothing; "
        "check that the namespace has a LocalQueue 'nowhere': kubectl get localqueues,workloads."
    )


def test_a_suspended_job_without_queue_is_reported():
    suspended = {"metadata": {"name": "train-0a1b"}, "spec": {"suspend": True}}
    assert line(waiting(suspended, [], {}), "t") == (
        "t: is suspended; it is in no queue; resume the Job, or ask who suspended it."
    )


def test_a_pod_that_does_not_end_is_named():
    leaving = pod("old", phase="Running", node="node-7", conditions=[DISRUPTED])
    leaving["metadata"]["deletionTimestamp"] = "2026-01-01T00:00:00Z"
    found = waiting(PENDING, [leaving], {})
    assert found.may_resolve
    assert line(found, "t").startswith("t: waiting for the end of pod old on node-7; evicted: its node was tainted or lost")


def test_a_running_or_new_job_needs_no_explanation():
    assert waiting(PENDING, [pod(phase="Running")], {}) is None
    assert waiting(PENDING, [], {}) is None
    deleted = unscheduled("0/1 nodes are available: 1 Insufficient cpu.")
    deleted["metadata"]["deletionTimestamp"] = "gone"
    assert waiting(PENDING, [deleted], {}) is None


def container_waits(reason, message):
    found = pod(phase="Pending")
    state = {"waiting": {"reason": reason, "message": message}}
    found["status"]["containerStatuses"][0] |= {"image": "registry/x", "state": state}
    return waiting(PENDING, [found], {})


PULL = 'failed to pull and unpack image "registry/x@sha256:0401403": failed to resolve reference "registry/x@sha256:0401403": '


@pytest.mark.parametrize(
    ("message", "remedy"),
    [
        (PULL + "no match for platform in manifest: not found", "build it for the processor of the nodes"),
        (PULL + "pull access denied, repository does not exist or may require authorization", "set pull_secrets"),
        (PULL + "unexpected status from HEAD request: 401 Unauthorized", "set pull_secrets"),
        (
            PULL + "429 Too Many Requests - toomanyrequests: You have reached your pull rate limit",
            "the registry limits the number of pulls",
        ),
        (PULL + 'Head "https://registry/v2": dial tcp: lookup registry: no such host', "the node cannot reach the registry"),
        (PULL + "registry/x@sha256:0401403: not found", "correct `image` in kubernetes.yml, push it"),
    ],
)
def test_the_pull_error_decides_the_remedy(message, remedy):
    found = container_waits("ErrImagePull", message)
    assert found.kind == "image" and found.remedy.startswith(remedy)


def test_a_missing_key_of_a_secret_is_named():
    found = container_waits("CreateContainerConfigError", "couldn't find key AWS_ACCESS_KEY_ID in Secret ns/bucket")
    assert "couldn't find key AWS_ACCESS_KEY_ID in Secret ns/bucket; create the secret, or correct `secrets`" in line(found)


@pytest.mark.parametrize(
    ("message", "remedy"),
    [
        ("0/3 nodes are available: 3 node(s) had untolerated taint {spot: }. preemption: 0/3 nodes.", "set `tolerations`"),
        (
            "0/3 nodes are available: 3 node(s) didn't match Pod's node affinity/selector.",
            "correct `node_selector`",
        ),
        (
            "0/3 nodes are available: 3 node(s) had volume node affinity conflict. preemption: x",
            "no suitable node reaches its volume",
        ),
        ("0/2 nodes are available: 1 Insufficient cpu, 1 node(s) had untolerated taint {a: }. preemption: x", "request less"),
    ],
)
def test_the_scheduling_error_decides_the_remedy(message, remedy):
    assert waiting(PENDING, [unscheduled(message)], {}).remedy.startswith(remedy)


def test_a_scheduling_gate_is_not_a_lack_of_resources():
    held = unscheduled("Scheduling is blocked due to non-empty scheduling gates")
    held["status"]["conditions"][0]["reason"] = "SchedulingGated"
    found = waiting(PENDING, [held], {})
    assert found.kind == "queue" and "no node fits" not in line(found)


def test_a_pod_on_a_lost_node_quotes_the_node_controller():
    message = "Node node-7 which was running pod old is unresponsive"
    lost = pod("old", phase="Running", node="node-7")
    lost["metadata"]["deletionTimestamp"] = "2026-01-01T00:00:00Z"
    lost["status"] |= {"reason": "NodeLost", "message": message}
    assert f"pod old on node-7; {message}; if its node is lost" in line(waiting(PENDING, [lost], {}))


def test_an_unreachable_pod_is_recognized():
    unready = {"type": "Ready", "status": "False"}
    silent = pod(phase="Running", conditions=[unready])
    silent["status"]["containerStatuses"][0]["state"] = {"running": {"startedAt": "2026-01-01T00:00:00Z"}}
    assert is_unreachable(silent)
    assert is_unreachable(pod(phase="Unknown"))
    assert not is_unreachable(pod(phase="Running", conditions=[unready]))  # its container has not started yet
    silent["status"]["conditions"] = [{"type": "Ready", "status": "True"}]
    assert not is_unreachable(silent)
