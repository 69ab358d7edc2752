"""What the watches tell, taken in: a list that comes anew stands for all that was missed while the thread was lost."""

from fourfold_ops.kubernetes.cluster.client import ApiError
from fourfold_ops.kubernetes.cluster.watch_cache import EVENTS_KEPT, WatchCache


class Server:
    """Knows which Jobs are there."""

    def __init__(self, *jobs):
        self.jobs = jobs

    def get(self, resource, name):
        if name not in self.jobs:
            raise ApiError(404, "get", resource, "ns", "gone")
        return {}


def job(name):
    return {"metadata": {"name": name, "uid": name}}


def pod(name, job_name="train"):
    metadata = {"name": name, "labels": {"batch.kubernetes.io/job-name": job_name}, "managedFields": ["long"]}
    return {"metadata": metadata, "spec": {"containers": []}, "status": {"phase": "Running"}}


def told(mirror, resource, *message):
    return [(kind, found["metadata"]["name"]) for _, kind, found in mirror.take(resource, message)]


def test_all_is_seen_once_each_kind_has_been_listed():
    mirror = WatchCache(Server(), set())
    for resource in ("jobs", "pods", "events"):
        assert not mirror.is_whole
        assert told(mirror, resource, "LISTED", []) == []
    assert mirror.is_whole


def test_a_pod_that_a_new_list_lacks_was_deleted_meanwhile():
    mirror = WatchCache(Server(), set())
    assert told(mirror, "pods", "LISTED", [pod("a"), pod("b")]) == [("MODIFIED", "a"), ("MODIFIED", "b")]
    assert told(mirror, "pods", "LISTED", [pod("b"), pod("c")]) == [("DELETED", "a"), ("MODIFIED", "b"), ("MODIFIED", "c")]
    assert [found["metadata"]["name"] for found in mirror.pods_of("train")] == ["b", "c"]
    assert mirror.pods_of("other") == []


def test_a_job_that_an_old_list_lacks_is_not_taken_for_deleted():
    mirror = WatchCache(Server("new"), set())
    mirror.remember(job("new"))
    mirror.remember(job("old"))
    assert told(mirror, "jobs", "LISTED", []) == [("DELETED", "old")]
    assert list(mirror.jobs) == ["new"]


def test_only_the_last_events_about_the_runs_own_jobs_are_kept():
    mirror = WatchCache(Server(), {"train-0a1b"})
    for number in range(3 * EVENTS_KEPT):
        for about in ("train-0a1b-x", "somebody-elses"):
            mirror_event = {"metadata": {"name": "e"}, "involvedObject": {"name": about}, "message": str(number)}
            assert told(mirror, "events", "ADDED", mirror_event) == []
    assert list(mirror.events) == ["train-0a1b-x"]
    assert [event["message"] for event in mirror.events["train-0a1b-x"]] == [
        str(n) for n in range(2 * EVENTS_KEPT, 3 * EVENTS_KEPT)
    ]


def test_of_a_pod_and_of_a_job_only_what_is_looked_at_is_kept():
    mirror = WatchCache(Server(), set())
    sent = {**job("train"), "spec": {"suspend": True, "template": {"spec": {}}}}
    sent["metadata"] |= {"managedFields": ["long"], "annotations": {"a": "b"}}
    told(mirror, "jobs", "ADDED", sent)
    metadata = {"name": "train", "uid": "train", "annotations": {"a": "b"}}
    assert mirror.jobs["train"] == {"metadata": metadata, "spec": {"suspend": True}, "status": {}}
    told(mirror, "pods", "ADDED", pod("a"))
    assert "managedFields" not in mirror.pods["a"]["metadata"]
