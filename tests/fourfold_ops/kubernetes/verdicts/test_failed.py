"""Verdicts on failed steps."""

import sys
from pathlib import Path

import pytest

from fourfold_ops.kubernetes.verdicts.failed import disruption, failure, pod_failure, root_cause_pod
from fourfold_ops.kubernetes.verdicts.progress import Progress

sys.path.insert(0, str(Path(__file__).parent))
from shapes import AGAIN, HALFWAY, job, line, pod


def test_out_of_memory_names_limit_step_and_checkpoint():
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


def test_bad_configuration_is_not_resumed():
    message = "\x1b[31mFailed: Parameters are not valid: a.b is an unknown key. [details: data/run.log]\x1b[0m"
    found = failure(job("PodFailurePolicy"), [pod(code=78, message=message)], Progress(), AGAIN)
    assert found.kind == "configuration"
    assert line(found) == (
        "pretraining/train: bad configuration (exit 78, not retried) on node-0; Failed: Parameters are not valid: "
        "a.b is an unknown key; correct it and rerun."
    )


def test_an_exceeded_deadline_is_named():
    found = failure(job("DeadlineExceeded", activeDeadlineSeconds=60), [pod(code=143)], HALFWAY, AGAIN)
    assert line(found).startswith(
        "pretraining/train: exceeded its deadline of 60 s; step 1840 of 4500; last checkpoint 1800; raise dead"
    )


@pytest.mark.parametrize(
    ("reason", "words"),
    [
        ("PreemptionByScheduler", "preempted by a pod of higher priority"),
        ("DeletionByTaintManager", "evicted: its node was tainted or lost"),
        ("EvictionByEvictionAPI", "drained"),
        ("DeletionByPodGC", "deleted with its lost node"),
        ("SomethingNew", "removed (SomethingNew)"),
    ],
)
def test_the_cause_of_a_disruption_is_named(reason, words):
    taken = pod(code=143, conditions=[{"type": "DisruptionTarget", "status": "True", "reason": reason}])
    assert words in disruption(taken)
    assert pod_failure(taken, Progress(), AGAIN).kind == "disrupted"
    assert disruption(pod(code=1)) == ""


def test_failed_parts_are_listed():
    found = job("FailedIndexes", backoffLimitPerIndex=3)
    found["status"]["failedIndexes"] = "1,3"
    assert line(failure(found, [pod(code=1, message="ValueError: bad shard")], Progress(), AGAIN), "label") == (
        f"label: parts 1,3 failed: failed (exit 1) on node-0; ValueError: bad shard; only these run again with: {AGAIN}."
    )


def test_the_first_failure_is_the_cause_and_memory_comes_first():
    lost = pod("rank-1", code=1, message="RuntimeError: Connection closed by peer", ended="2026-01-01T00:00:09Z")
    root = pod("rank-0", code=1, message="ValueError: root", ended="2026-01-01T00:00:05Z")
    old = pod("attempt-1", code=137, reason="OOMKilled", ended="2025-12-31T00:00:05Z")
    assert root_cause_pod([lost, root, old])["metadata"]["name"] == "rank-0"
    killed = pod("rank-2", code=137, reason="OOMKilled", ended="2026-01-01T00:00:11Z")
    assert root_cause_pod([lost, root, killed])["metadata"]["name"] == "rank-2"
    assert root_cause_pod([pod(phase="Running")]) is None


def test_an_eviction_quotes_the_node():
    gone = pod(code=None, reason="Evicted")
    gone["status"] |= {"reason": "Evicted", "message": "The node was low on resource: ephemeral-storage."}
    assert "evicted on node-0; The node was low on resource: ephemeral-storage" in line(pod_failure(gone, Progress(), AGAIN))


def test_without_pods_the_condition_of_the_job_is_quoted():
    assert "its pods no longer exist; Job has reached the specified backoff limit (BackoffLimitExceeded)" in line(
        failure(job(), [], Progress(), AGAIN)
    )


# --- nodes and images ---


def test_an_eviction_under_node_pressure_is_a_disruption():
    message = "The node was low on resource: ephemeral-storage. Threshold quantity: 1Gi, available: 900Mi. "
    gone = pod(code=137, conditions=[{"type": "DisruptionTarget", "status": "True", "reason": "TerminationByKubelet"}])
    gone["status"] |= {"reason": "Evicted", "message": message}
    found = pod_failure(gone, HALFWAY, AGAIN)
    assert found.kind == "disrupted"
    assert line(found).startswith(f"pretraining/train: evicted on node-0; {message.strip(' .')}; step 1840 of 4500; last ")
    assert "raise `scratch` in kubernetes.yml, or write less there; resume with" in line(found)


@pytest.mark.parametrize(
    ("message", "remedy"),
    [
        ('Usage of EmptyDir volume "scratch" exceeds the limit "10Gi". ', "raise `scratch`"),
        ("Pod ephemeral local storage usage exceeds the total limit of containers 1Gi. ", "raise `scratch`"),
        ('Usage of EmptyDir volume "shared-memory" exceeds the limit "64Mi". ', "raise shared_memory"),
        ("The node was low on resource: memory. Container step was using 3Gi, request is 1Gi", "request the memory"),
    ],
)
def test_an_eviction_over_a_limit_names_the_limit_to_raise(message, remedy):
    gone = pod(code=137)
    gone["status"] |= {"reason": "Evicted", "message": message}
    found = pod_failure(gone, Progress(), AGAIN)
    assert found.kind == "evicted" and remedy in found.remedy and message.strip(" .") in line(found)


def test_a_lost_container_is_not_reported_as_out_of_memory():
    found = pod_failure(pod(code=137, reason="ContainerStatusUnknown", message="could not be located"), HALFWAY, AGAIN)
    assert "the node lost its container (ContainerStatusUnknown) on node-0; step 1840" in line(found)
    assert "memory" not in line(found)


@pytest.mark.parametrize(
    ("reason", "message"),
    [
        ("UnexpectedAdmissionError", "Allocate failed due to no healthy devices present; cannot allocate unhealthy devices"),
        ("OutOfcpu", "Node didn't have enough resource: cpu, requested: 8000, used: 1000, capacity: 8000"),
        ("NodeAffinity", "Pod was rejected: Predicate NodeAffinity failed"),
    ],
)
def test_a_rejection_by_kubelet_is_quoted(reason, message):
    refused = pod(code=None)
    refused["status"] |= {"reason": reason, "message": message, "containerStatuses": []}
    assert f"rejected by its node ({reason}) on node-0; {message}" in line(pod_failure(refused, Progress(), AGAIN))


OCI = "failed to create containerd task: failed to create shim task: OCI runtime create failed: runc create failed: "
OCI_START = OCI + "unable to start container process: "


@pytest.mark.parametrize(
    ("message", "evidence", "remedy"),
    [
        (OCI_START + 'exec: "kedro": executable file not found in $PATH: unknown', "not found in $PATH", "correct `command`"),
        (
            OCI_START + 'exec: "/opt/kedro": permission denied: unknown',
            "permission denied",
            "the user of the image may not run it",
        ),
        (
            OCI_START + 'chdir to cwd ("/opt/project") set in config.json failed: no such file or directory: unknown',
            "/opt/project",
            "correct `project`",
        ),
        (OCI + "exec /usr/bin/python: exec format error: unknown", "exec format error", "the image is for another processor"),
    ],
)
def test_a_container_that_cannot_start_is_not_a_failure_of_the_code(message, evidence, remedy):
    found = pod_failure(pod(code=128, reason="StartError", message=message), Progress(), AGAIN)
    assert found.kind == "start" and "the container cannot start (StartError) on node-0" in line(found)
    assert evidence in found.evidence and remedy in found.remedy
    assert "unknown" not in line(found) and "signal" not in line(found) and AGAIN not in line(found)


def test_an_exec_format_error_in_the_log_names_the_processor():
    found = pod_failure(pod(code=255, message="exec /opt/venv/bin/python: exec format error\n"), Progress(), AGAIN)
    assert "failed (exit 255) on node-0; exec /opt/venv/bin/python: exec format error; the image is for another" in line(found)


@pytest.mark.parametrize(("code", "words"), [(127, "its command is not in the image"), (126, "its command is not executable")])
def test_a_missing_command_is_not_a_failure_of_the_code(code, words):
    found = pod_failure(pod(code=code, message="sh: 1: kedro: not found"), Progress(), AGAIN)
    assert f"{words}; sh: 1: kedro: not found; correct `command` in kubernetes.yml" in line(found)
    assert words not in line(pod_failure(pod(code=code, message="x"), HALFWAY, AGAIN))  # it ran, so the exit code is its own


@pytest.mark.parametrize(("code", "signal"), [(139, ", signal 11"), (134, ", signal 6"), (255, ""), (128, ""), (3, "")])
def test_only_exit_codes_of_signals_name_a_signal(code, signal):
    assert f"failed (exit {code}{signal}) on" in line(pod_failure(pod(code=code, message="x"), Progress(), AGAIN))


def test_a_pod_without_output_is_reported():
    assert "failed (exit 3) on node-0; no output; resume with" in line(pod_failure(pod(code=3), Progress(), AGAIN))


@pytest.mark.parametrize(
    ("message", "remedy"),
    [
        ("torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 2.00 GiB.", "the GPU has too little memory"),
        (
            "RuntimeError: DataLoader worker (pid 7) is killed by signal: Bus error.",
            "raise shared_memory",
        ),
        ("OSError: [Errno 28] No space left on device: 'data/x'", "free space on the volume"),
        ("ValueError: x", "resume with"),
    ],
)
def test_errors_that_would_repeat_name_the_change_first(message, remedy):
    assert pod_failure(pod(code=1, message=message), Progress(), AGAIN).remedy.startswith(remedy)
