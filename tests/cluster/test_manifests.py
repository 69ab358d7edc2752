"""k8s/ and the manifests of the runner against a real API server."""

import json

import pytest
import yaml
from projects import ALL_TAINTS, CHECKOUT, SITE

GOLDEN = sorted((CHECKOUT / "tests/fourfold_ops/kubernetes/manifests/golden").glob("*.yaml"))
OVERLAYS = ("local", "gpu")


def kustomized(cluster, overlay):
    """Return the objects of an overlay."""
    return [
        found for found in yaml.safe_load_all(cluster.kubectl("kustomize", str(CHECKOUT / "k8s/overlays" / overlay))) if found
    ]


def hardened(image, command):
    """Return the spec of a pod that Pod Security "restricted" admits."""
    return {
        "restartPolicy": "Never",
        "tolerations": [ALL_TAINTS],
        "securityContext": {"runAsNonRoot": True, "seccompProfile": {"type": "RuntimeDefault"}},
        "volumes": [{"name": "scratch", "emptyDir": {}}],
        "containers": [
            {
                "name": "client",
                "image": image,
                "command": command,
                "volumeMounts": [{"name": "scratch", "mountPath": "/tmp"}],
                "securityContext": {
                    "allowPrivilegeEscalation": False,
                    "readOnlyRootFilesystem": True,
                    "capabilities": {"drop": ["ALL"]},
                },
            }
        ],
    }


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_overlays_are_accepted_by_server_and_pod_security(cluster, namespace, overlay):
    objects = [found for found in kustomized(cluster, overlay) if found["kind"] != "Namespace"]
    for found in objects:
        found["metadata"]["namespace"] = namespace
    done = cluster.try_kubectl("create", "--dry-run=server", "-f", "-", content=yaml.safe_dump_all(objects))
    assert done.returncode == 0, done.stderr
    assert "would violate PodSecurity" not in done.stderr
    for found in objects:
        if found["kind"] in ("Deployment", "StatefulSet"):
            spec, templates = found["spec"]["template"]["spec"], found["spec"].get("volumeClaimTemplates", [])
            claims = [(template["metadata"]["name"], {"claimName": "dry"}) for template in templates]
            spec["volumes"] += [{"name": name, "persistentVolumeClaim": claim} for name, claim in claims]
            admit(cluster, namespace, spec)


def admit(cluster, namespace, spec):
    """Check with a dry run that the server admits a pod; missing objects that it references do not matter."""
    spec = {key: value for key, value in spec.items() if key not in ("serviceAccountName", "priorityClassName")}
    pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "dry", "namespace": namespace}, "spec": spec}
    cluster.kubectl("create", "--dry-run=server", "-f", "-", content=json.dumps(pod))


def test_there_are_golden_manifests():
    assert len(GOLDEN) >= 5


@pytest.mark.parametrize("golden", GOLDEN, ids=lambda path: path.stem)
def test_golden_manifests_are_accepted_by_server_and_pod_security(cluster, namespace, golden):
    for found in yaml.safe_load_all(golden.read_text()):
        found["metadata"]["namespace"] = namespace
        found["metadata"].pop("ownerReferences", None)
        answer = cluster.try_kubectl("create", "--dry-run=server", "-f", "-", "-o", "json", content=json.dumps(found))
        assert answer.returncode == 0, answer.stderr
        assert "would violate PodSecurity" not in answer.stderr
        if found["kind"] == "Job":
            admit(cluster, namespace, found["spec"]["template"]["spec"])


def test_rendered_manifests_are_accepted_by_the_server(project):
    rendered = project.start("k8s", "render", f"--runner-params=site={SITE}")
    assert rendered.wait() == 0, rendered.output
    text = rendered.output[rendered.output.index("--- #") :]
    project.cluster.kubectl("create", "--dry-run=server", "-f", "-", content=text)
    assert {found["kind"] for found in yaml.safe_load_all(text) if found} == {"Job"}
