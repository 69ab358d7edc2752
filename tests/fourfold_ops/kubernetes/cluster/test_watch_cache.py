"""Messages of watches, applied to the cache; a repeated list replaces the changes that were missed."""

from fourfold_ops.kubernetes.cluster.client import ApiError
from fourfold_ops.kubernetes.cluster.watch_cache import MAX_EVENTS, WatchCache


class Server:
    """A server with these Jobs."""

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


def changes(cache, resource, *message):
    return [(kind, found["metadata"]["name"]) for _, kind, found in cache.apply(resource, message)]


def test_the_cache_is_complete_after_all_resources_were_listed():
    cache = WatchCache(Server(), set())
    for resource in ("jobs", "pods", "events"):
        assert not cache.is_complete
        assert changes(cache, resource, "LISTED", []) == []
    assert cache.is_complete


def test_a_pod_that_a_new_list_lacks_was_deleted():
    cache = WatchCache(Server(), set())
    assert changes(cache, "pods", "LISTED", [pod("a"), pod("b")]) == [("MODIFIED", "a"), ("MODIFIED", "b")]
    assert changes(cache, "pods", "LISTED", [pod("b"), pod("c")]) == [("DELETED", "a"), ("MODIFIED", "b"), ("MODIFIED", "c")]
    assert [found["metadata"]["name"] for found in cache.pods_of("train")] == ["b", "c"]
    assert cache.pods_of("other") == []


def test_a_new_job_that_an_old_list_lacks_is_kept():
    cache = WatchCache(Server("new"), set())
    cache.add_job(job("new"))
    cache.add_job(job("old"))
    assert changes(cache, "jobs", "LISTED", []) == [("DELETED", "old")]
    assert list(cache.jobs) == ["new"]


def test_only_the_last_events_about_jobs_of_the_run_are_kept():
    cache = WatchCache(Server(), {"train-0a1b"})
    for number in range(3 * MAX_EVENTS):
        for about in ("train-0a1b-x", "another-job"):
            event = {"metadata": {"name": "e"}, "involvedObject": {"name": about}, "message": str(number)}
            assert changes(cache, "events", "ADDED", event) == []
    assert list(cache.events) == ["train-0a1b-x"]
    assert [kept["message"] for kept in cache.events["train-0a1b-x"]] == [str(n) for n in range(2 * MAX_EVENTS, 3 * MAX_EVENTS)]


def test_unused_fields_of_pods_and_jobs_are_dropped():
    cache = WatchCache(Server(), set())
    sent = {**job("train"), "spec": {"suspend": True, "template": {"spec": {}}}}
    sent["metadata"] |= {"managedFields": ["long"], "annotations": {"a": "b"}}
    changes(cache, "jobs", "ADDED", sent)
    metadata = {"name": "train", "uid": "train", "annotations": {"a": "b"}}
    assert cache.jobs["train"] == {"metadata": metadata, "spec": {"suspend": True}, "status": {}}
    changes(cache, "pods", "ADDED", pod("a"))
    assert "managedFields" not in cache.pods["a"]["metadata"]
