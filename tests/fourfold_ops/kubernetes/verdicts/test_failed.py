"""The lines that a user reads when a step has failed."""

import sys
from pathlib import Path

import pytest

from fourfold_ops.kubernetes.progress import Progress
from fourfold_ops.kubernetes.verdicts.failed import disruption, failure, pod_failure, python_error, telling_pod

sys.path.insert(0, str(Path(__file__).parent))
from shapes import AGAIN, HALFWAY, job, line, pod


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


def test_the_error_of_a_nested_traceback_is_the_last_one():
    text = "KeyError: 1\nDuring handling\nmodule.errors.CustomError: second\ntail"
    assert python_error(text) == "module.errors.CustomError: second"
    assert python_error("Failed in a stage, node b: It broke. [details: x]") == "It broke."
    assert python_error("") == ""
