"""Real failures, and the line that the user reads: what, where, evidence, remedy."""

import json
import re
import time

import pytest
from projects import SITE
from testcluster.cluster import GPUS

AGAIN = r"kedro run --runner=\S+ --runner-params=site=cluster --pipelines=training"
TRAINING = "--pipelines=training"


def verdict(project, *arguments, **environment):
    """Run the training, which must fail without a traceback, and return the last line of the driver."""
    driver = project.run(TRAINING, *arguments, **environment)
    assert driver.code, driver.output
    assert "Traceback" not in driver.output
    return driver.last_line


def test_out_of_memory_names_limit_step_and_checkpoint(project):
    line = verdict(project, "--params=training.at=7,training.how=memory")
    expected = (
        r"Failed: training/train: OOMKilled \(exit 137\) on node-0 at step 7 of 12; limit 600Mi; last checkpoint 5; "
        rf"raise memory in kubernetes.yml; resume with: {AGAIN} --params=training.at=7,training.how=memory"
    )
    assert re.match(expected, line), line


def test_an_error_of_the_code_is_quoted_with_its_progress_and_without_a_secret(project):
    token, metadata = "planted-4f1c9a", {"name": "store", "namespace": project.namespace}
    project.cluster.apply({"apiVersion": "v1", "kind": "Secret", "metadata": metadata, "stringData": {"STORE_TOKEN": token}})
    project.configure(secrets=[{"name": "store"}])
    line = verdict(project, "--params=training.at=7,training.how=error")
    assert "at step 7, with ***." in line, line  # the pod had it
    kept = [path for path in project.folder.rglob("*") if path.is_file() and token.encode() in path.read_bytes()]
    assert not kept and token not in json.dumps([project.jobs(), project.pods()]) + project.describe()
    assert re.match(r"Failed: training/train: failed \(exit 1\) on node-0; .*The loss is not a number at step 7", line), line
    assert "step 7 of 12; last checkpoint 5" in line
    assert re.search(rf"resume with: {AGAIN}", line), line


def test_bad_configuration_is_not_retried(project):
    project.configure(default={"retries": 3})
    line = verdict(project, "--params=training.at=0,training.how=configuration")
    assert re.match(r"Failed: training/train: bad configuration \(exit 78, not retried\) on node-0; ", line), line
    assert "training.steps is odd. Make it even" in line
    assert len([pod for pod in project.pods() if pod["metadata"]["name"].startswith("train")]) == 1


def test_a_failing_process_is_retried_and_its_exit_code_named(project):
    project.configure(default={"retries": 1})
    line = verdict(project, "--params=training.at=7,training.how=exit")
    assert re.match(r"Failed: training/train: failed \(exit 3\) on node-0; ", line), line
    (job,) = project.jobs()
    assert job["status"]["failed"] == 2


def test_a_missing_image_is_named(project):
    absent = f"localhost/absent@sha256:{'0' * 64}"
    project.configure(image=absent, start_seconds=20)  # enough to mount the volume at the second attempt
    line = verdict(project)
    assert re.match(rf"Failed: training/train: image {re.escape(absent)} cannot be pulled \(\w+\) on node-0; ", line), line
    assert "correct `image` in kubernetes.yml" in line


def test_missing_gpus_are_named_within_15_seconds(project):
    project.configure(nodes={"train": {"gpus": GPUS + 1}}, pending_seconds=60)
    driver = project.start(*project.on_cluster(TRAINING))
    submitted = project.wait_for_pod("Pending", "train")
    since = time.monotonic()
    driver.wait_for("Insufficient nvidia.com/gpu", seconds=15)
    assert time.monotonic() - since < 15, submitted
    driver.interrupt()
    driver.wait()


def test_a_step_that_fits_no_node_fails_after_pending_seconds(project):
    project.configure(nodes={"train": {"gpus": GPUS + 1}}, pending_seconds=3)
    line = verdict(project)
    assert re.match(r"Failed: training/train: no node fits: .*Insufficient nvidia.com/gpu; requested .*9 nvidia.com/gpu", line)


def test_an_exhausted_quota_is_named(project):
    limits = {"apiVersion": "v1", "kind": "ResourceQuota", "metadata": {"name": "small", "namespace": project.namespace}}
    project.cluster.apply({**limits, "spec": {"hard": {"requests.nvidia.com/gpu": "0"}}})
    project.configure(pending_seconds=3)
    line = verdict(project)
    assert re.match(r"Failed: training/train: quota small refuses the pod; requested: requests.nvidia.com/gpu=1", line), line


def test_a_missing_permission_is_named_with_verb_and_resource(project):
    kubeconfig = project.account(
        "onlooker", [{"apiGroups": ["batch"], "resources": ["jobs"], "verbs": ["list", "get", "watch"]}]
    )
    line = verdict(project, KUBECONFIG=str(kubeconfig))
    assert re.search(rf"not allowed to \w+ (jobs|pods|events)(\.batch)? in namespace '{project.namespace}'", line), line
    assert "system:serviceaccount" in line
    assert "bind the Role of k8s/base" in line


def test_an_exceeded_deadline_is_named(project):
    project.configure(nodes={"train": {"deadline_seconds": 15}})
    line = verdict(project, "--params=training.seconds=3.0")
    assert re.match(r"Failed: training/train: exceeded its deadline of 15 s; ", line), line
    assert "raise deadline_seconds in kubernetes.yml" in line


def test_a_missing_claim_is_named(project):
    project.configure(volumes=[{"mount": "data", "claim": "forgotten"}], start_seconds=3)
    line = verdict(project)
    assert "forgotten" in line
    assert "correct `volumes` in kubernetes.yml" in line


def test_a_host_path_is_refused_by_pod_security(project):
    project.configure(volumes=[{"mount": "data", "host_path": str(project.folder / "data")}], start_seconds=3)
    line = verdict(project)
    assert "Pod Security refuses the pod" in line
    assert "hostPath" in line


def test_an_unknown_site_is_refused_before_anything_is_submitted(project):
    driver = project.start("run", "--runner=fourfold_ops.kubernetes.KubernetesRunner", "--runner-params=site=moon", TRAINING)
    assert driver.wait() == 78
    assert "conf/moon/kubernetes.yml" in driver.last_line
    assert SITE not in driver.last_line
    assert project.jobs() == []


@pytest.mark.parametrize("resources", [{"cpu": "1000"}, {"memory": "1Pi"}])
def test_a_resource_that_no_node_has_is_named(project, resources):
    project.configure(nodes={"train": resources}, pending_seconds=3)
    assert re.search(r"no node fits: .*Insufficient (cpu|memory)", verdict(project))
