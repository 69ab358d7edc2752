"""Faults that a run must survive: lost drivers, lost pods, two runs at once; and Ctrl-C, which must leave nothing."""

import json

import pytest
from projects import SITE
from testcluster.identities import NODE

TRAINING, LABELING = "--pipelines=training", "--pipelines=labeling"


def expected_state(steps, size=7):
    """Return the expected result of the training."""
    state = 1
    for step in range(steps):
        state = (state * 6364136223846793005 + step % size) % 2**64
    return {"state": state, "steps": steps}


def expected_labels(shards=4, size=7):
    """Return the expected result of labeling."""
    return {str(shard): {str(n): (n * 2654435761 + shard) % 1000 for n in range(size)} for shard in range(shards)}


def test_a_restarted_driver_adopts_its_jobs(project):
    arguments = project.on_cluster(TRAINING, "--params=training.steps=60,training.seconds=0.3")
    first = project.start(*arguments)
    project.wait_for_log("training: 3/60")
    first.kill()
    before = {job["metadata"]["uid"] for job in project.jobs()}
    second = project.start(*arguments)
    assert second.wait() == 0, second.output
    assert {job["metadata"]["uid"] for job in project.jobs()} == before
    assert len(project.pods()) == 1
    assert json.loads(project.read("trained.json")) == expected_state(60)

    third = project.start(*arguments)
    assert third.wait() == 0, third.output
    assert {job["metadata"]["uid"] for job in project.jobs()} == before, "a finished step was run again"


def test_a_deleted_pod_resumes_to_the_same_result(project):
    driver = project.start(*project.on_cluster(TRAINING, "--params=training.steps=30,training.seconds=0.3"))
    project.wait_for_log("checkpoint at step 5")
    pod = project.wait_for_pod("Running", "train")
    project.cluster.kubectl("delete", "pod", pod, f"--namespace={project.namespace}", "--wait=false")
    project.wait_for_log("resuming from step")
    assert driver.wait() == 0, driver.output
    assert json.loads(project.read("trained.json")) == expected_state(30)


def evict(project, pod):
    """Evict a pod, as draining a node does."""
    body = {"apiVersion": "policy/v1", "kind": "Eviction", "metadata": {"name": pod, "namespace": project.namespace}}
    place = f"/api/v1/namespaces/{project.namespace}/pods/{pod}/eviction"
    project.cluster.kubectl("create", "--raw", place, "-f", "-", content=json.dumps(body))


def taint(project, pod):
    """Taint the node until the pod is deleted, as a cloud does that reclaims it."""
    project.cluster.kubectl("taint", "node", NODE, "fourfold.test/reclaimed:NoExecute")
    try:
        project.cluster.kubectl("wait", "--for=delete", f"pod/{pod}", f"--namespace={project.namespace}", "--timeout=60s")
    finally:
        project.cluster.kubectl("taint", "node", NODE, "fourfold.test/reclaimed:NoExecute-")


@pytest.mark.taints
@pytest.mark.parametrize("disrupt", [evict, taint])
def test_a_disrupted_pod_is_restarted_without_a_retry(project, disrupt):
    project.configure(default={"tolerations": []})
    driver = project.start(*project.on_cluster(TRAINING, "--params=training.steps=30,training.seconds=0.3"))
    project.wait_for_log("checkpoint at step 5")
    disrupt(project, project.wait_for_pod("Running", "train"))
    assert driver.wait() == 0, driver.output  # with `retries: 0`
    assert json.loads(project.read("trained.json")) == expected_state(30)


def test_a_split_step_with_killed_parts_equals_one_process(project):
    project.configure(default={"retries": 3})
    driver = project.start(*project.on_cluster(LABELING, "--params=labeling.shards=8,labeling.seconds=2.0"))
    for _ in range(2):
        pod = project.wait_for_pod("Running", "label")
        project.cluster.kubectl("delete", "pod", pod, f"--namespace={project.namespace}", "--grace-period=1")
    assert driver.wait() == 0, driver.output
    on_cluster = project.read("labels.json")
    assert json.loads(on_cluster) == expected_labels(shards=8)
    (project.folder / "data/labels.json").unlink()
    for path in (project.folder / "data/labels").iterdir():
        path.unlink()
    alone = project.start("run", LABELING, "--params=labeling.shards=8,labeling.seconds=0.0")
    assert alone.wait() == 0, alone.output
    assert project.read("labels.json") == on_cluster


def test_ctrl_c_deletes_the_jobs_of_the_run(project):
    driver = project.start(*project.on_cluster(TRAINING, "--params=training.steps=1000,training.seconds=0.3"))
    pod = project.wait_for_pod("Running", "train")
    driver.interrupt()
    assert driver.wait() == 130, driver.output
    assert "Stopped in the cluster: train-" in driver.output
    assert project.jobs() == []
    assert pod not in [p["metadata"]["name"] for p in project.pods("Running")]


def test_two_runs_at_once_are_independent_and_clean_removes_both(project):
    short = project.on_cluster(TRAINING, "--params=training.steps=13,training.seconds=0.1")
    other = project.on_cluster(LABELING)
    drivers = [project.start(*short), project.start(*other)]
    assert [driver.wait() for driver in drivers] == [0, 0], "\n".join(driver.output for driver in drivers)
    assert json.loads(project.read("trained.json")) == expected_state(13)
    assert json.loads(project.read("labels.json")) == expected_labels()

    listed = project.start("k8s", "list", f"--site={SITE}")
    assert listed.wait() == 0, listed.output
    assert "training/train" in listed.output
    assert "labeling/label" in listed.output
    cleaned = project.start("k8s", "clean", f"--site={SITE}")
    assert cleaned.wait() == 0, cleaned.output
    left = project.cluster.get("jobs,pods,services,configmaps,secrets", f"--namespace={project.namespace}")["items"]
    assert [found["metadata"]["name"] for found in left] == ["kube-root-ca.crt"]


def test_two_pods_connect_and_sum_their_ranks(project):
    project.configure(default={"memory": "1500Mi"})
    driver = project.run("--pipelines=pair")
    assert driver.code == 0, driver.output
    assert json.loads(project.read("summed.json")) == {"sum": 3.0, "world": 2}
