"""The driver as a Job, with the permissions of k8s/base."""

import json
import time

import yaml
from projects import CHECKOUT, SITE
from test_faults import expected_state

from fourfold_ops.kubernetes.cluster.client import role_rules

TRAINING = "--pipelines=training"


def role():
    """Return the objects of k8s/base for the driver."""
    return list(yaml.safe_load_all((CHECKOUT / "k8s/base/driver.yaml").read_text()))


def test_the_role_of_k8s_base_equals_the_permissions_of_the_client():
    def table(found):
        return {(g, r): set(rule["verbs"]) for rule in found for g in rule["apiGroups"] for r in rule["resources"]}

    assert table(next(found for found in role() if found["kind"] == "Role")["rules"]) == table(role_rules())


def test_a_submitted_driver_runs_the_pipeline_and_can_be_removed(project):
    project.cluster.apply(
        *({**found, "metadata": {**found["metadata"], "namespace": project.namespace}} for found in bound(project))
    )
    # the driver reads its configuration from the image, which must therefore name the image of the steps
    project.image = project.cluster.put_project("miniature", project.folder)
    submitted = project.start("submit", f"--runner-params=site={SITE}", TRAINING)
    assert submitted.wait() == 0, submitted.output
    end = time.monotonic() + 150
    while not (project.folder / "data/trained.json").exists():
        assert time.monotonic() < end, project.describe()
        time.sleep(0.5)
    driver = next(job for job in project.jobs() if job["metadata"]["name"].startswith("driver-"))["metadata"]["name"]
    project.cluster.kubectl(
        "wait", "--for=condition=Complete", f"job/{driver}", f"--namespace={project.namespace}", "--timeout=60s"
    )
    assert json.loads(project.read("trained.json")) == expected_state(12)

    logs = project.start("k8s", "logs", driver, f"--site={SITE}")
    assert logs.wait() == 0, logs.output
    assert "Run miniature-" in logs.output
    project.cluster.kubectl("delete", "job", driver, f"--namespace={project.namespace}")
    end = time.monotonic() + 180
    while project.jobs():  # the Job of the driver owns that of the step
        assert time.monotonic() < end, project.describe()
        time.sleep(0.5)


def bound(project):
    """Return the objects for the driver, with the namespace that kustomize would write into the binding."""
    found = role()
    for one in found:
        for subject in one.get("subjects", []):
            subject["namespace"] = project.namespace
    return found
