"""k8s/ and the manifests of the runner against a real API server, and MLflow of k8s/overlays/local in use."""

import json
import subprocess
import time
import urllib.request

import mlflow
import pytest
import yaml
from projects import CHECKOUT, SITE

GOLDEN = sorted((CHECKOUT / "tests/fourfold_ops/kubernetes/manifests/golden").glob("*.yaml"))
OVERLAYS = ("local", "gpu")
LOCAL = "fourfold"


def kustomized(cluster, overlay):
    """Return the objects of an overlay."""
    return [
        found for found in yaml.safe_load_all(cluster.kubectl("kustomize", str(CHECKOUT / "k8s/overlays" / overlay))) if found
    ]


@pytest.fixture(scope="module")
def local(own_cluster, tmp_path_factory):
    """Apply the overlay `local` as a user does, with the image of the project and volumes of this machine."""
    cluster, folder = own_cluster, tmp_path_factory.mktemp("volumes")
    reference = cluster.put_project("fourfold", CHECKOUT)
    overlay = tmp_path_factory.mktemp("overlay")
    name, _, digest = reference.partition("@")
    content = {
        "resources": [str((CHECKOUT / "k8s/overlays/local").relative_to("/"))],
        "images": [{"name": "fourfold-tracking", "newName": name, "digest": digest}],
    }
    content["resources"] = ["../" * (len(overlay.parts) - 1) + content["resources"][0]]
    (overlay / "kustomization.yaml").write_text(yaml.safe_dump(content))
    for claim in ("fourfold-data", "mlflow"):
        (folder / claim).mkdir()
        subprocess.run(["chown", "1000:1000", str(folder / claim)], check=True)
        cluster.offer_volume(LOCAL, claim, folder / claim)
    cluster.kubectl("apply", "-k", str(overlay))
    yield cluster
    cluster.kubectl("delete", "-k", str(overlay), "--wait=true")
    cluster.kubectl("delete", "persistentvolume", f"--selector=namespace={LOCAL}")


def test_the_local_overlay_starts_and_mlflow_records_a_run(local):
    local.kubectl("rollout", "status", "deployment/mlflow", f"--namespace={LOCAL}", "--timeout=250s")
    claims = {c["metadata"]["name"]: c["status"]["phase"] for c in local.get("pvc", f"--namespace={LOCAL}")["items"]}
    assert claims == {"fourfold-data": "Bound", "mlflow": "Bound"}
    address = local.get("service", "mlflow", f"--namespace={LOCAL}")["spec"]["clusterIP"]
    with pytest.raises(urllib.error.HTTPError, match="403"):  # by an unknown host name (DNS rebinding)
        urllib.request.urlopen(f"http://{address}:5000/api/2.0/mlflow/experiments/get?experiment_id=0", timeout=20)

    script = (
        "import mlflow; mlflow.set_tracking_uri('http://mlflow:5000'); mlflow.start_run(); mlflow.log_metric('loss', 0.5); "
        "mlflow.log_text('words', 'note.txt'); print(mlflow.active_run().info.run_id)"
    )
    run_id = run_in_pod(local, LOCAL, ["python", "-c", script]).strip().splitlines()
    run_id = next(line for line in run_id if len(line) == 32)
    with forwarded(local, LOCAL) as uri:
        client = mlflow.MlflowClient(uri)
        assert client.get_run(run_id).data.metrics == {"loss": 0.5}
        assert [found.path for found in client.list_artifacts(run_id)] == ["note.txt"]


def run_in_pod(cluster, namespace, command):
    """Run a command in a hardened pod with the image of the project; return its output."""
    image = cluster.get("deployment", "mlflow", f"--namespace={namespace}")["spec"]["template"]["spec"]["containers"][0][
        "image"
    ]
    metadata = {"name": "client", "namespace": namespace, "labels": {"app.kubernetes.io/managed-by": "fourfold-ops"}}
    cluster.apply({"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": hardened(image, command)})
    end = time.monotonic() + 90
    while (phase := cluster.get("pod", "client", f"--namespace={namespace}")["status"].get("phase")) in (
        None,
        "Pending",
        "Running",
    ):
        assert time.monotonic() < end, cluster.kubectl("describe", "pod", "client", f"--namespace={namespace}")
        time.sleep(0.5)
    log = cluster.kubectl("logs", "client", f"--namespace={namespace}")
    assert phase == "Succeeded", log
    return log


def hardened(image, command):
    """Return the spec of a pod that Pod Security "restricted" admits."""
    return {
        "restartPolicy": "Never",
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


class forwarded:  # noqa: N801
    """`kubectl port-forward` to MLflow, as documented in docs/kubernetes.md."""

    def __init__(self, cluster, namespace):
        command = [f"{cluster.programs}/kubectl", f"--kubeconfig={cluster.kubeconfig}", f"--namespace={namespace}"]
        self.process = subprocess.Popen(
            [*command, "port-forward", "service/mlflow", ":5000"], stdout=subprocess.PIPE, text=True
        )

    def __enter__(self):
        line = self.process.stdout.readline()
        return "http://localhost:" + line.partition("127.0.0.1:")[2].partition(" ")[0]

    def __exit__(self, *_):
        self.process.terminate()
        self.process.wait()


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


def test_the_namespace_refuses_pods_that_are_not_hardened(local):
    pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "soft", "namespace": LOCAL}}
    done = local.try_kubectl(
        "apply", "-f", "-", content=json.dumps({**pod, "spec": {"containers": [{"name": "c", "image": "x"}]}})
    )
    assert done.returncode
    assert "violates PodSecurity" in done.stderr


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
