"""k8s/ and the runner's manifests, judged by a real API server; MLflow from k8s/overlays/local, in use."""

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
    """Apply base + local as a user does, with the project's image and volumes of this machine; remove it afterwards."""
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


def test_base_and_local_are_applied_as_they_stand_and_mlflow_records_a_run(local):
    local.kubectl("rollout", "status", "deployment/mlflow", f"--namespace={LOCAL}", "--timeout=250s")
    claims = {c["metadata"]["name"]: c["status"]["phase"] for c in local.get("pvc", f"--namespace={LOCAL}")["items"]}
    assert claims == {"fourfold-data": "Bound", "mlflow": "Bound"}
    address = local.get("service", "mlflow", f"--namespace={LOCAL}")["spec"]["clusterIP"]
    with pytest.raises(urllib.error.HTTPError, match="403"):  # by a name that it does not know: DNS rebinding
        urllib.request.urlopen(f"http://{address}:5000/api/2.0/mlflow/experiments/get?experiment_id=0", timeout=20)

    script = (
        "import mlflow; mlflow.set_tracking_uri('http://mlflow:5000'); mlflow.start_run(); mlflow.log_metric('loss', 0.5); "
        "mlflow.log_text('words', 'note.txt'); print(mlflow.active_run().info.run_id)"
    )
    run_id = say(local, LOCAL, ["python", "-c", script]).strip().splitlines()
    run_id = next(line for line in run_id if len(line) == 32)
    with forwarded(local, LOCAL) as uri:
        client = mlflow.MlflowClient(uri)
        assert client.get_run(run_id).data.metrics == {"loss": 0.5}
        assert [found.path for found in client.list_artifacts(run_id)] == ["note.txt"]


def say(cluster, namespace, command):
    """Run a command in a hardened pod of the project's image; return what it prints."""
    image = cluster.get("deployment", "mlflow", f"--namespace={namespace}")["spec"]["template"]["spec"]["containers"][0][
        "image"
    ]
    metadata = {"name": "asker", "namespace": namespace, "labels": {"app.kubernetes.io/managed-by": "fourfold-ops"}}
    cluster.apply({"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": hardened(image, command)})
    end = time.monotonic() + 90
    while (phase := cluster.get("pod", "asker", f"--namespace={namespace}")["status"].get("phase")) in (
        None,
        "Pending",
        "Running",
    ):
        assert time.monotonic() < end, cluster.kubectl("describe", "pod", "asker", f"--namespace={namespace}")
        time.sleep(0.5)
    said = cluster.kubectl("logs", "asker", f"--namespace={namespace}")
    assert phase == "Succeeded", said
    return said


def hardened(image, command):
    """Return the spec of a pod that Pod Security "restricted" admits."""
    return {
        "restartPolicy": "Never",
        "securityContext": {"runAsNonRoot": True, "seccompProfile": {"type": "RuntimeDefault"}},
        "volumes": [{"name": "scratch", "emptyDir": {}}],
        "containers": [
            {
                "name": "asker",
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
    """`kubectl port-forward` to MLflow, as docs/kubernetes.md tells people to look at it."""

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
def test_every_object_of_an_overlay_is_accepted_by_the_server_and_its_pods_by_pod_security(cluster, namespace, overlay):
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
    """Ask the server whether it would admit a pod; objects that it names and that are not there do not matter."""
    spec = {key: value for key, value in spec.items() if key not in ("serviceAccountName", "priorityClassName")}
    pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "dry", "namespace": namespace}, "spec": spec}
    cluster.kubectl("create", "--dry-run=server", "-f", "-", content=json.dumps(pod))


def test_a_pod_that_is_not_hardened_is_refused_where_base_and_local_are_applied(local):
    pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "soft", "namespace": LOCAL}}
    done = local.try_kubectl(
        "apply", "-f", "-", content=json.dumps({**pod, "spec": {"containers": [{"name": "c", "image": "x"}]}})
    )
    assert done.returncode
    assert "violates PodSecurity" in done.stderr


def test_there_are_golden_manifests_to_judge():
    assert len(GOLDEN) >= 5


@pytest.mark.parametrize("golden", GOLDEN, ids=lambda path: path.stem)
def test_golden_manifests_are_accepted_by_the_server_and_their_pods_by_pod_security(cluster, namespace, golden):
    for found in yaml.safe_load_all(golden.read_text()):
        found["metadata"]["namespace"] = namespace
        found["metadata"].pop("ownerReferences", None)
        answer = cluster.try_kubectl("create", "--dry-run=server", "-f", "-", "-o", "json", content=json.dumps(found))
        assert answer.returncode == 0, answer.stderr
        assert "would violate PodSecurity" not in answer.stderr
        if found["kind"] == "Job":
            admit(cluster, namespace, found["spec"]["template"]["spec"])


def test_what_render_prints_is_what_the_server_takes_and_a_role_may_do_no_more_than_it_says(project):
    rendered = project.start("k8s", "render", f"--runner-params=site={SITE}")
    assert rendered.wait() == 0, rendered.output
    text = rendered.output[rendered.output.index("--- #") :]
    project.cluster.kubectl("create", "--dry-run=server", "-f", "-", content=text)
    assert {found["kind"] for found in yaml.safe_load_all(text) if found} == {"Job"}
