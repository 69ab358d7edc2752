"""The cluster: starting its programs in order, using it through `kubectl`, and removing it completely."""

import json
import os
import shutil
import subprocess
import tempfile
import time
from functools import cached_property
from pathlib import Path
from typing import Any

import requests
from requests.adapters import HTTPAdapter

from testcluster import control_plane, node
from testcluster.errors import ClusterError
from testcluster.identities import ADMIN, API, NODE, write_identities
from testcluster.images import put_pause, put_project
from testcluster.machine import Machine, remove_tree
from testcluster.programs import build, built_folder, cache_folder, check

PROGRAM_SECONDS = 180
NODE_SECONDS = 240
READ_SECONDS = 60
GPUS = 8  # simulated: the scheduler counts them like real ones
GPU = "nvidia.com/gpu"


class Cluster:
    """A running control plane with one node; `kubeconfig` is that of the administrator."""

    def __init__(self, machine: Machine) -> None:
        self.machine, self.folder = machine, machine.folder
        self.identities = self.folder / "identities"
        self.kubeconfig = self.identities / f"{ADMIN}.kubeconfig"
        self.programs = built_folder()

    # --- start and stop ---

    @classmethod
    def start(cls, kept: bool = False) -> "Cluster":
        """Start a cluster and wait until pods can run. Unless it is `kept`, it ends with this process."""
        check()
        build()
        remove_stale()
        if found := running():
            raise ClusterError(f"A test cluster already runs in {found}. Stop it with: make cluster-down.")
        folder = Path(tempfile.mkdtemp(prefix="fourfold-cluster-"))
        folder.chmod(0o755)  # pods run as another user and must reach their volumes
        _note().parent.mkdir(parents=True, exist_ok=True)
        _note().write_text(json.dumps({"folder": str(folder), "kept": kept}))
        cluster = cls(Machine(folder))
        try:
            cluster._start(kept)
        except BaseException:
            cluster.stop(keep_logs=True)
            raise
        return cluster

    def _start(self, kept: bool) -> None:
        # 1) Namespaces and identities
        write_identities(self.identities)
        machine, identities = self.machine, self.identities
        machine.start(outlives_parent=kept)
        # 2) Storage, container runtime and API server
        audit = self.folder / "audit.log"
        audit.with_suffix(".policy").write_text(control_plane.AUDIT_POLICY)
        machine.launch("etcd", control_plane.etcd(self.folder))
        machine.launch("containerd", node.write_containerd(self.folder))
        machine.launch("kube-apiserver", control_plane.api_server(self.programs, identities, audit))
        machine.wait_until(lambda: _answers(machine.inside(_control("version"))), "containerd", PROGRAM_SECONDS)
        node.write_container_defaults(self.folder, machine.run(_control("oci", "spec")))
        # 3) Restart containerd, which reads the defaults of containers at its start
        machine.stop_program("containerd")
        machine.start_again("containerd")
        machine.wait_until(lambda: _answers(machine.inside(_control("version"))), "containerd", PROGRAM_SECONDS)
        put_pause(machine, self.programs)
        self.wait_for_api()
        # 4) Programs that depend on the API server
        self.apply(node.DNS_ROLE, node.DNS_ROLE_BINDING)
        machine.launch("kube-controller-manager", control_plane.controller_manager(self.programs, identities))
        machine.launch("kube-scheduler", control_plane.scheduler(self.programs, identities))
        machine.launch("kubelet", node.write_kubelet(self.folder, self.programs, identities))
        machine.launch("kube-proxy", node.write_proxy(self.folder, self.programs, identities))
        machine.launch("coredns", node.write_dns(self.folder, self.programs, identities))
        machine.wait_until(self._node_is_ready, "kubelet", NODE_SECONDS)
        machine.wait_until(lambda: self._ok("get", "serviceaccount", "default"), "kube-controller-manager", PROGRAM_SECONDS)
        self.set_gpus(GPUS)

    def stop(self, keep_logs: bool = False) -> None:
        """Stop the cluster and remove everything that it left."""
        self.machine.stop()
        if not keep_logs:
            remove_tree(self.folder)
        _note().unlink(missing_ok=True)

    @classmethod
    def attach(cls, folder: Path) -> "Cluster":
        """Return the cluster that `make cluster-up` left running in `folder`."""
        return cls(Machine.load(folder))

    # --- use ---

    def kubectl(self, *arguments: str, content: str = "") -> str:
        """Run kubectl as the administrator and return its output. Raises ClusterError if it fails."""
        done = self.try_kubectl(*arguments, content=content)
        if done.returncode:
            raise ClusterError(f"`kubectl {' '.join(arguments)}` failed ({done.returncode}): {done.stderr.strip()[-3000:]}")
        return done.stdout

    def try_kubectl(self, *arguments: str, content: str = "") -> subprocess.CompletedProcess[str]:
        """Run kubectl as the administrator and return the finished process, even if it failed."""
        command = [str(self.programs / "kubectl"), f"--kubeconfig={self.kubeconfig}", *arguments]
        environment = {k: v for k, v in os.environ.items() if k != "KUBECONFIG"}
        return subprocess.run(command, input=content, capture_output=True, text=True, timeout=300, env=environment)

    def apply(self, *objects: dict[str, Any]) -> None:
        """Create or update objects."""
        self.kubectl("apply", "-f", "-", content=json.dumps({"apiVersion": "v1", "kind": "List", "items": list(objects)}))

    def get(self, *arguments: str) -> dict[str, Any]:
        """Return the output of `kubectl get ... -o json`."""
        found: dict[str, Any] = json.loads(self.kubectl("get", *arguments, "-o", "json"))
        return found

    def read(self, path: str) -> requests.Response:
        """Return the answer of the API server to a GET as the administrator.

        Loops that wait for something use it: each start of kubectl costs a tenth of a second of a core.
        """
        return self._session.get(f"{API}{path}", timeout=READ_SECONDS)

    @cached_property
    def _session(self) -> requests.Session:
        session, config = requests.Session(), json.loads(self.kubeconfig.read_text())
        session.trust_env = False  # no proxy
        session.verify = config["clusters"][0]["cluster"]["certificate-authority"]
        session.headers["Authorization"] = f"Bearer {config['users'][0]['user']['token']}"
        session.mount("https://", HTTPAdapter(max_retries=3))  # of connections that broke while they were idle
        return session

    def put_project(self, name: str, folder: Path) -> str:
        """Create an image of a project on the node; return its reference by digest."""
        return put_project(self.machine, name, folder)

    def offer_volume(self, namespace: str, claim: str, folder: Path) -> None:
        """Create a volume from a folder of this machine, for a claim that is created later."""
        spec = {
            "capacity": {"storage": "10Gi"},
            "accessModes": ["ReadWriteMany", "ReadWriteOnce"],
            "storageClassName": "",
            "persistentVolumeReclaimPolicy": "Retain",
            "hostPath": {"path": str(folder), "type": "Directory"},
            "claimRef": {"namespace": namespace, "name": claim},
        }
        metadata = {"name": f"{namespace}-{claim}", "labels": {"namespace": namespace}}
        self.apply({"apiVersion": "v1", "kind": "PersistentVolume", "metadata": metadata, "spec": spec})

    def volume(self, namespace: str, claim: str, folder: Path) -> None:
        """Create a claim that is a folder of this machine, readable and writable by many pods, and wait until it is bound."""
        self.offer_volume(namespace, claim, folder)
        spec = {
            "accessModes": ["ReadWriteMany"],
            "storageClassName": "",
            "volumeName": f"{namespace}-{claim}",
            "resources": {"requests": {"storage": "10Gi"}},
        }
        metadata = {"name": claim, "namespace": namespace}
        self.apply({"apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": metadata, "spec": spec})
        where = ("persistentvolumeclaim", claim, f"--namespace={namespace}")
        self._until(lambda: self.get(*where)["status"]["phase"] == "Bound", f"the claim {claim}", 60)

    def wait_for_account(self, namespace: str) -> None:
        """Wait for the default service account of a new namespace, without which no pod is admitted."""
        self._until(lambda: self._ok("get", "serviceaccount", "default", f"--namespace={namespace}"), "the service account", 60)

    def set_gpus(self, number: int, resource: str = GPU) -> None:
        """Set the number of simulated GPUs of the node, and wait until they are allocatable."""
        path = f"/status/capacity/{resource.replace('/', '~1')}"
        patch = [{"op": "add", "path": path, "value": str(number)}]
        self.kubectl("patch", "node", NODE, "--subresource=status", "--type=json", f"--patch={json.dumps(patch)}")
        self._until(
            lambda: self.get("node", NODE)["status"]["allocatable"].get(resource) == str(number), f"{number} {resource}", 30
        )

    # --- faults ---

    def wait_for_api(self) -> None:
        """Wait until the API server is ready."""
        self.machine.wait_until(lambda: self._ok("get", "--raw", "/readyz"), "kube-apiserver", PROGRAM_SECONDS)

    def stop_api(self) -> None:
        """Stop the API server; connections are then refused."""
        self.machine.refresh()
        self.machine.stop_program("kube-apiserver")

    def start_api(self) -> None:
        """Start the API server again and wait for it; then controller manager and scheduler, with new watches.

        Broken watches return late, each at its own time: the controller that binds claims was seen to notice a new claim
        after more than a minute, and until then no pod with a volume starts.
        """
        self.machine.start_again("kube-apiserver")
        self.wait_for_api()
        for name in ("kube-controller-manager", "kube-scheduler"):
            self.machine.stop_program(name)
            self.machine.start_again(name)

    def _node_is_ready(self) -> bool:
        done = self.try_kubectl("get", "node", NODE, "-o", "json")
        conditions = json.loads(done.stdout)["status"].get("conditions", []) if done.returncode == 0 else []
        return any(c["type"] == "Ready" and c["status"] == "True" for c in conditions)

    def _ok(self, *arguments: str) -> bool:
        return self.try_kubectl(*arguments).returncode == 0

    @staticmethod
    def _until(condition: Any, what: str, seconds: float) -> None:
        end = time.monotonic() + seconds
        while not condition():
            if time.monotonic() > end:
                raise ClusterError(f"Timed out after {seconds:.0f} s while waiting for {what}.")
            time.sleep(0.2)


class GivenCluster(Cluster):
    """A cluster of the user, by its kubeconfig; tests cannot create images and volumes on its nodes."""

    def __init__(self, kubeconfig: Path) -> None:
        found = shutil.which("kubectl")
        if found is None:
            raise ClusterError("KUBECONFIG is set, but kubectl is not on the PATH. Install it.")
        self.kubeconfig, self.programs = kubeconfig, Path(found).parent


def running(kept: bool | None = None) -> Path | None:
    """Return the folder of the running cluster, None without one; `kept`: only one of `make cluster-up`."""
    try:
        note = json.loads(_note().read_text())
        machine = Machine.load(Path(note["folder"]))
    except (OSError, ValueError):
        return None
    alive = machine.init > 0 and Path(f"/proc/{machine.init}/ns/net").exists()
    return machine.folder if alive and kept in (None, note["kept"]) else None


def remove_stale() -> None:
    """Remove the folder and control groups of a cluster whose process was killed; its namespaces no longer exist."""
    if running() is None and _note().exists():
        folder = Path(json.loads(_note().read_text())["folder"])
        if (folder / "machine.json").exists():
            Machine.load(folder).stop()
        remove_tree(folder)
        _note().unlink()


def _note() -> Path:
    return cache_folder() / "running.json"


def _control(*arguments: str) -> list[str]:
    return ["ctr", "--address", node.SOCKET, *arguments]


def _answers(command: list[str]) -> bool:
    return subprocess.run(command, capture_output=True).returncode == 0
