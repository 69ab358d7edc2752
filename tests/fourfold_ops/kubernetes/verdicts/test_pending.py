"""The lines that a user reads while a step waits."""

import sys
from pathlib import Path

import pytest

from fourfold_ops.kubernetes.cluster.objects import is_out_of_reach
from fourfold_ops.kubernetes.verdicts.pending import waiting

sys.path.insert(0, str(Path(__file__).parent))
from shapes import DISRUPTED, PENDING, line, pod, unscheduled


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


@pytest.mark.parametrize(
    ("reason", "message", "then"),
    [
        ("FailedScheduling", "0/1 nodes are available: pod has unbound immediate PersistentVolumeClaims.", "Scheduled"),
        ("FailedScheduling", "0/1 nodes are available: 1 Insufficient cpu.", None),  # its successor was not seen
        ("FailedAttachVolume", "Multi-Attach error for volume", "SuccessfulAttachVolume"),
        ("FailedMount", "MountVolume.SetUp failed for volume", "Pulling"),
    ],
)
def test_what_a_pod_has_behind_it_is_no_reason_to_wait(reason, message, then):
    events = [{"reason": reason, "message": message, "lastTimestamp": "2026-01-01T00:00:00Z"}]
    events += [{"reason": then, "message": "", "lastTimestamp": "2026-01-01T00:00:00Z"}] if then else []
    assert waiting(PENDING, [pod(phase="Pending", node="node-0")], {"p": events}) is None


def test_a_quota_that_refuses_the_pod_is_named():
    message = (
        'Error creating: pods "train-0a1b-x" is forbidden: exceeded quota: team, requested: requests.nvidia.com/gpu=1, '
        "used: requests.nvidia.com/gpu=2, limited: requests.nvidia.com/gpu=2"
    )
    found = waiting(PENDING, [], {"train-0a1b": [{"reason": "FailedCreate", "message": message}]})
    assert found.kind == "quota" and found.waits_for_place
    assert line(found, "t").startswith("t: quota team refuses the pod; requested: requests.nvidia.com/gpu=1, used: ")


def test_a_job_in_a_queue_says_so_and_what_kueue_says():
    queued = {
        "metadata": {"name": "train-0a1b", "labels": {"kueue.x-k8s.io/queue-name": "research"}},
        "spec": {"suspend": True},
    }
    events = {"job-train-0a1b-7": [{"reason": "Pending", "message": "couldn't assign flavors: insufficient unused quota"}]}
    found = waiting(queued, [], events)
    assert found.waits_for_place
    assert line(found, "t") == "t: waits in queue 'research'; couldn't assign flavors: insufficient unused quota."


def test_a_job_of_which_kueue_says_nothing_may_name_a_queue_that_is_not_there():
    queued = {
        "metadata": {"name": "train-0a1b", "labels": {"kueue.x-k8s.io/queue-name": "nowhere"}},
        "spec": {"suspend": True},
    }
    events = {"train-0a1b": [{"reason": "Suspended", "message": "Job suspended"}]}
    assert line(waiting(queued, [], events), "t") == (
        "t: waits in queue 'nowhere'; Kueue says nothing of it; "
        "see whether the namespace has a LocalQueue 'nowhere': kubectl get localqueues,workloads."
    )


def test_a_job_that_somebody_suspended_is_in_no_queue():
    suspended = {"metadata": {"name": "train-0a1b"}, "spec": {"suspend": True}}
    assert line(waiting(suspended, [], {}), "t") == (
        "t: is suspended; no queue holds it; whoever suspended it must let it go on."
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


def container_waits(reason, message):
    found = pod(phase="Pending")
    state = {"waiting": {"reason": reason, "message": message}}
    found["status"]["containerStatuses"][0] |= {"image": "registry/x", "state": state}
    return waiting(PENDING, [found], {})


PULL = 'failed to pull and unpack image "registry/x@sha256:0401403": failed to resolve reference "registry/x@sha256:0401403": '


@pytest.mark.parametrize(
    ("message", "remedy"),
    [
        (PULL + "no match for platform in manifest: not found", "build it for the nodes' processor"),
        (PULL + "pull access denied, repository does not exist or may require authorization", "name pull_secrets"),
        (PULL + "unexpected status from HEAD request: 401 Unauthorized", "name pull_secrets"),
        (
            PULL + "429 Too Many Requests - toomanyrequests: You have reached your pull rate limit",
            "the registry lets nobody",
        ),
        (PULL + 'Head "https://registry/v2": dial tcp: lookup registry: no such host', "the node cannot reach the registry"),
        (PULL + "registry/x@sha256:0401403: not found", "correct `image` in kubernetes.yml, push it"),
    ],
)
def test_why_an_image_cannot_be_pulled_decides_what_to_do(message, remedy):
    found = container_waits("ErrImagePull", message)
    assert found.kind == "image" and found.remedy.startswith(remedy)


def test_a_key_that_a_secret_lacks_is_named():
    found = container_waits("CreateContainerConfigError", "couldn't find key AWS_ACCESS_KEY_ID in Secret ns/bucket")
    assert "couldn't find key AWS_ACCESS_KEY_ID in Secret ns/bucket; create the secret, or correct `secrets`" in line(found)


@pytest.mark.parametrize(
    ("message", "remedy"),
    [
        ("0/3 nodes are available: 3 node(s) had untolerated taint {spot: }. preemption: 0/3 nodes.", "name `tolerations`"),
        (
            "0/3 nodes are available: 3 node(s) didn't match Pod's node affinity/selector.",
            "correct `node_selector`",
        ),
        ("0/3 nodes are available: 3 node(s) had volume node affinity conflict. preemption: x", "its volume lies where"),
        ("0/2 nodes are available: 1 Insufficient cpu, 1 node(s) had untolerated taint {a: }. preemption: x", "ask for less"),
    ],
)
def test_why_no_node_fits_decides_what_to_do(message, remedy):
    assert waiting(PENDING, [unscheduled(message)], {}).remedy.startswith(remedy)


def test_a_pod_that_is_held_back_on_purpose_is_not_said_to_lack_room():
    held = unscheduled("Scheduling is blocked due to non-empty scheduling gates")
    held["status"]["conditions"][0]["reason"] = "SchedulingGated"
    found = waiting(PENDING, [held], {})
    assert found.kind == "queue" and "no node has room" not in line(found)


def test_a_pod_on_a_lost_node_quotes_the_node_controller():
    message = "Node node-7 which was running pod old is unresponsive"
    lost = pod("old", phase="Running", node="node-7")
    lost["metadata"]["deletionTimestamp"] = "2026-01-01T00:00:00Z"
    lost["status"] |= {"reason": "NodeLost", "message": message}
    assert f"pod old on node-7; {message}; if its node is lost" in line(waiting(PENDING, [lost], {}))


def test_a_pod_that_its_node_no_longer_speaks_of_is_told_from_one_that_runs():
    unready = {"type": "Ready", "status": "False"}
    silent = pod(phase="Running", conditions=[unready])
    silent["status"]["containerStatuses"][0]["state"] = {"running": {"startedAt": "2026-01-01T00:00:00Z"}}
    assert is_out_of_reach(silent)
    assert is_out_of_reach(pod(phase="Unknown"))
    assert not is_out_of_reach(pod(phase="Running", conditions=[unready]))  # its container has not started yet
    silent["status"]["conditions"] = [{"type": "Ready", "status": "True"}]
    assert not is_out_of_reach(silent)
