"""k8s/overlays/local in use: MLflow records a run, and the component `serving` answers with a model that was promoted to it."""

import base64
import io
import json
import subprocess
import sys
import urllib.error
import urllib.request
from contextlib import contextmanager
from pathlib import Path

import mlflow
import numpy as np
import pytest
import yaml
from PIL import Image
from projects import ALL_TAINTS, CHAIN, CHECKOUT, Project, finished_pod
from test_manifests import hardened

LOCAL = "fourfold"
WHERE = f"--namespace={LOCAL}"
PATCH = [{"op": "add", "path": "/spec/template/spec/tolerations", "value": [ALL_TAINTS]}]
START_SECONDS = 250
PARAMS = {"targets": ["depth", "semseg"], "seed": 3, "format": "png"}
IN_PROCESS = """
import json, sys
import mlflow
mlflow.set_tracking_uri(sys.argv[1])
inputs, params = json.load(sys.stdin)
print(json.dumps(mlflow.pyfunc.load_model("models:/fourfold@candidate").predict(inputs, params=params)))
"""


@pytest.fixture(scope="module")
def overlay(own_cluster, clean_chain, tmp_path_factory):
    """Return a function that applies the overlay `local` with components, as a user does, with volumes of this machine."""
    cluster, folder, volumes = own_cluster, tmp_path_factory.mktemp("overlay"), tmp_path_factory.mktemp("volumes")
    name, _, digest = cluster.put_project("fourfold", clean_chain).partition("@")
    for claim in ("fourfold-data", "mlflow"):
        (volumes / claim).mkdir()
        subprocess.run(["chown", "1000:1000", str(volumes / claim)], check=True)
        cluster.offer_volume(LOCAL, claim, volumes / claim)

    def apply(*components):
        root = "../" * (len(folder.parts) - 1) + str((CHECKOUT / "k8s").relative_to("/"))
        content = {
            "namespace": LOCAL,
            "resources": [f"{root}/overlays/local"],
            "components": [f"{root}/components/{component}" for component in components],
            "images": [{"name": f"fourfold-{part}", "newName": name, "digest": digest} for part in ("tracking", "serving")],
            "patches": [{"target": {"kind": "Deployment"}, "patch": yaml.safe_dump(PATCH)}],
        }
        (folder / "kustomization.yaml").write_text(yaml.safe_dump(content))
        cluster.kubectl("apply", "-k", str(folder))
        for part in ("mlflow", *components):
            cluster.kubectl("rollout", "status", f"deployment/{part}", WHERE, f"--timeout={START_SECONDS}s")
        return cluster

    yield apply
    cluster.kubectl("delete", "-k", str(folder), "--wait=true")
    cluster.kubectl("delete", "persistentvolume", f"--selector=namespace={LOCAL}")


def test_the_local_overlay_starts_and_mlflow_records_a_run(overlay):
    local = overlay()
    claims = {c["metadata"]["name"]: c["status"]["phase"] for c in local.get("pvc", WHERE)["items"]}
    assert claims == {"fourfold-data": "Bound", "mlflow": "Bound"}
    address = local.get("service", "mlflow", WHERE)["spec"]["clusterIP"]
    with pytest.raises(urllib.error.HTTPError, match="403"):  # by an unknown host name (DNS rebinding)
        urllib.request.urlopen(f"http://{address}:5000/api/2.0/mlflow/experiments/get?experiment_id=0", timeout=20)

    script = (
        "import mlflow; mlflow.set_tracking_uri('http://mlflow:5000'); mlflow.start_run(); mlflow.log_metric('loss', 0.5); "
        "mlflow.log_text('words', 'note.txt'); print(mlflow.active_run().info.run_id)"
    )
    run_id = run_in_pod(local, ["python", "-c", script]).strip().splitlines()
    run_id = next(line for line in run_id if len(line) == 32)
    with forwarded(local, "mlflow", 5000) as uri:
        client = mlflow.MlflowClient(uri)
        assert client.get_run(run_id).data.metrics == {"loss": 0.5}
        assert [found.path for found in client.list_artifacts(run_id)] == ["note.txt"]


def run_in_pod(cluster, command):
    """Run a command in a hardened pod with the image of the project; return its output."""
    (container,) = cluster.get("deployment", "mlflow", WHERE)["spec"]["template"]["spec"]["containers"]
    metadata = {"name": "client", "namespace": LOCAL, "labels": {"app.kubernetes.io/managed-by": "fourfold-ops"}}
    cluster.apply({"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": hardened(container["image"], command)})
    phase = finished_pod(cluster, LOCAL, "client")["status"]["phase"]
    log = cluster.kubectl("logs", "client", WHERE)
    assert phase == "Succeeded", log
    return log


@contextmanager
def forwarded(cluster, service, port):
    """Forward a port of this machine to a Service, as documented in docs/kubernetes.md; yield the address."""
    command = [f"{cluster.programs}/kubectl", f"--kubeconfig={cluster.kubeconfig}", WHERE, "port-forward", f"service/{service}"]
    process = subprocess.Popen([*command, f":{port}"], stdout=subprocess.PIPE, text=True)
    try:
        line = process.stdout.readline()
        yield "http://localhost:" + line.partition("127.0.0.1:")[2].partition(" ")[0]
    finally:
        process.terminate()
        process.wait()


def test_the_champion_of_the_cluster_answers_images_as_the_model_does_in_process(overlay, whole_chain):
    local = overlay()
    with forwarded(local, "mlflow", 5000) as uri:  # a run registered the model elsewhere: this makes it the champion here
        options = ["candidate", f"--to={uri}", "--force", "--reason=a tiny model passes no gate", *CHAIN]
        promotion = Project(whole_chain, local, "").start("models", "promote", *options)
        assert promotion.wait() == 0, promotion.output
    overlay("serving")
    image = png()
    with forwarded(local, "serving", 8000) as address:
        answer = ask(address, {"inputs": {"rgb": image}, "params": PARAMS})
        assert answer == (200, {"outputs": in_process(whole_chain, image)})
        for inputs, sentence in (
            ({"rgb": base64.b64encode(b"no image").decode()}, "Input 'rgb'"),
            ({"rbg": image}, "Unknown input 'rbg'. Did you mean 'rgb'?"),
        ):
            status, content = ask(address, {"inputs": inputs, "params": PARAMS})
            assert status == 400 and content.keys() == {"error"}
            assert sentence in content["error"] and len(content["error"].splitlines()) == 1
        assert ask(address, None) == (200, {"status": "ready"})


def png():
    """Return a PNG of another size than the model's, in base64."""
    stream, noise = io.BytesIO(), np.random.default_rng(0).integers(0, 256, (90, 120, 3), dtype=np.uint8)
    Image.fromarray(noise).save(stream, "PNG")
    return base64.b64encode(stream.getvalue()).decode()


def ask(address, body):
    """Return status and content of the answer to POST /predict; without a body, of /ready."""
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(f"{address}/{'ready' if body is None else 'predict'}", data)
    request.add_header("Content-Type", "application/json")
    try:
        with urllib.request.urlopen(request, timeout=120) as answer:
            return answer.status, json.load(answer)
    except urllib.error.HTTPError as error:
        return error.code, json.load(error)


def in_process(folder, image):
    """Return the answer of the model of a project in a process on this machine."""
    store = f"sqlite:///{folder / 'data/mlflow.db'}"
    done = subprocess.run(
        [sys.executable, "-c", IN_PROCESS, store],
        input=json.dumps([{"rgb": [image]}, PARAMS]),
        cwd=Path(folder).parent,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    return {target: value for target, (value,) in json.loads(done.stdout.splitlines()[-1]).items()}


def test_the_namespace_refuses_pods_that_are_not_hardened(overlay):
    pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "soft", "namespace": LOCAL}}
    done = overlay().try_kubectl(
        "apply", "-f", "-", content=json.dumps({**pod, "spec": {"containers": [{"name": "c", "image": "x"}]}})
    )
    assert done.returncode
    assert "violates PodSecurity" in done.stderr
