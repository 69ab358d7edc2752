"""Tests of the test cluster: it behaves like a real one, and reports why it cannot start."""

import json
import subprocess
import sys

import psutil
import pytest
from projects import CHECKOUT, finished_pod
from test_manifests import hardened
from testcluster import programs
from testcluster.cluster import GPU, GPUS, Cluster
from testcluster.errors import ClusterError
from testcluster.identities import NODE
from testcluster.machine import Machine


@pytest.fixture(scope="module")
def image(own_cluster):
    """Return an image with an environment and no project."""
    folder = CHECKOUT / "tests/cluster/programs"
    return own_cluster.put_project("empty", folder)


def pod_of(cluster, namespace, image, command, **container):
    """Run a hardened pod to its end; return it."""
    spec = hardened(image, command)
    spec["containers"][0].update(container)
    metadata = {"name": "probe", "namespace": namespace}
    cluster.apply({"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": spec})
    return finished_pod(cluster, namespace, "probe")


def test_pods_resolve_services_and_trust_the_api_server(own_cluster, namespace, image):
    script = (
        "import ssl, urllib.request, pathlib; folder = pathlib.Path('/var/run/secrets/kubernetes.io/serviceaccount'); "
        "context = ssl.create_default_context(cafile=folder / 'ca.crt'); "
        "request = urllib.request.Request('https://kubernetes.default/version', headers={'Authorization': 'Bearer ' + "
        "(folder / 'token').read_text()}); print(urllib.request.urlopen(request, context=context).read().decode())"
    )
    found = pod_of(own_cluster, namespace, image, ["python", "-c", script])
    log = own_cluster.kubectl("logs", "probe", f"--namespace={namespace}")
    assert found["status"]["phase"] == "Succeeded", log
    assert json.loads(log)["gitVersion"].startswith("v1.34")


def test_memory_limits_are_enforced_and_the_image_is_read_only(own_cluster, namespace, image):
    resources = {"limits": {"memory": "100Mi", "cpu": "500m"}}
    found = pod_of(own_cluster, namespace, image, ["python", "-c", "held = bytearray(2**28)"], resources=resources)
    (status,) = found["status"]["containerStatuses"]
    assert (status["state"]["terminated"]["reason"], status["state"]["terminated"]["exitCode"]) == ("OOMKilled", 137)
    own_cluster.kubectl("delete", "pod", "probe", f"--namespace={namespace}", "--grace-period=0", "--force")
    pod_of(own_cluster, namespace, image, ["sh", "-c", "id -u; touch /usr/x; touch /x; touch /opt/environment/x; touch /tmp/x"])
    log = own_cluster.kubectl("logs", "probe", f"--namespace={namespace}")
    assert log.startswith("1000\n")
    assert log.count("Read-only file system") == 3


def test_simulated_gpus_are_allocatable(own_cluster):
    assert own_cluster.get("node", NODE)["status"]["allocatable"][GPU] == str(GPUS)


def test_a_missing_program_is_named_with_the_install_command(monkeypatch):
    monkeypatch.setattr(programs.shutil, "which", lambda name: None)
    with pytest.raises(ClusterError, match=r"the package etcd-server.*make cluster-install"):
        programs.check()


def test_a_program_that_fails_at_start_is_named_with_its_log(tmp_path):
    (tmp_path / "logs").mkdir()
    machine = Machine(tmp_path)
    machine.inside = lambda command: command
    machine.launch("etcd", ["sh", "-c", "sleep 0.3 & wait; echo 'cannot bind' >&2; exit 1"])
    with pytest.raises(ClusterError, match=r"(?s)etcd .*cannot bind"):
        machine.wait_until(lambda: False, "etcd", 5)


def test_a_second_cluster_is_refused(own_cluster):
    with pytest.raises(ClusterError, match=r"already runs in .*make cluster-down"):
        Cluster.start()


def test_namespaces_disappear_when_their_owner_is_killed(own_cluster, tmp_path):
    script = (
        "import sys, time; from pathlib import Path; from testcluster.machine import Machine; "
        "machine = Machine(Path(sys.argv[1])); "
        "machine._connect = machine.check_alone = lambda: None; machine.start(); machine.launch('sleeper', ['sleep', '1000']); "
        "print('up', flush=True); time.sleep(60)"
    )
    environment = {"PYTHONPATH": str(CHECKOUT / "tests/cluster"), "PATH": "/usr/bin:/bin:/usr/sbin:/sbin"}
    command = [sys.executable, "-c", script, str(tmp_path)]
    owner = subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True)
    assert owner.stdout.readline() == "up\n"
    started = psutil.Process(owner.pid).children(recursive=True)
    assert {"unshare", "sleep"} <= {process.name() for process in started}
    owner.kill()
    owner.wait()
    _, alive = psutil.wait_procs(started, timeout=20)
    assert not alive
