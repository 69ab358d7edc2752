"""The lines that a user reads while a step waits."""

import sys
from pathlib import Path

import pytest

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
