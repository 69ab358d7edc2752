"""Kedro projects on the cluster: their folder, image, volume and driver."""

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

sys.path.insert(0, str(Path(__file__).parents[1] / "support"))

from preloaded import Command
from testcluster.cluster import Cluster
from testcluster.identities import write_kubeconfig
from testcluster.images import USER
from tiny import ENVIRONMENT, PARAMETERS, tiny_clone

CHECKOUT = Path(__file__).parents[2]
MINIATURE = Path(__file__).with_name("miniature")
SITE = "cluster"
DRIVER_SECONDS = 180
CHAIN_SECONDS = 900
KILL_SECONDS = 180
# The user of the pods, who may also read folders of root, such as that of the environment.
AS_POD_USER = (
    *("setpriv", f"--reuid={USER}", f"--regid={USER}", "--clear-groups"),
    *("--inh-caps=+dac_read_search", "--ambient-caps=+dac_read_search", "--"),
)

CHAIN = [f"--env={ENVIRONMENT}"]  # options of a run of fourfold
STEPS = 200
# Long enough to be interrupted; float32, so that the losses of two processes differ little from those of one.
LONGER = {
    **PARAMETERS["pretraining"],
    "total_tokens": STEPS * 1152,
    "precision": "fp32",
    "loop": {"log_every": 1, "validate_every": 50, "checkpoint_every": 10},
}

ALL_TAINTS = {"operator": "Exists"}
KUBERNETES: dict[str, Any] = {
    "volumes": [{"mount": "data", "claim": "data"}],
    # The pods of several tests fit on two cores, each as fast as possible.
    "default": {
        "cpu": "100m",
        "cpu_limit": "2",
        "memory": "600Mi",
        "shared_memory": "64Mi",
        "scratch": "200Mi",
        "retries": 0,
        "tolerations": [ALL_TAINTS],  # a taint of another test
    },
    "driver": {"tolerations": [ALL_TAINTS]},
    "tags": {
        "gpu": {"gpus": 1},
        "split": {"shards": 4, "parallelism": 2},
        "together": {"nodes": 2},
        "tiny": {"cpu": "10m"},
    },
    "grace_seconds": 5,
    "start_seconds": 45,  # kubelet repeats a failed start after 10 to 15 s, e.g. if it may not read a new claim yet
    "pending_seconds": 120,  # pods of other tests may use the simulated GPUs
}


class Project:
    """A project whose `data/` is the claim `data` of a namespace; the driver runs here, as the user of the pods."""

    def __init__(self, folder: Path, cluster: Cluster, namespace: str) -> None:
        self.folder, self.cluster, self.namespace = folder, cluster, namespace
        self.site: dict[str, Any] = json.loads(json.dumps(KUBERNETES))
        self.image = ""
        self.driver = Path(sys.prefix)  # environment of the driver
        self.preloaded = True  # drivers are copies of a process that has imported the libraries

    def configure(self, **changes: Any) -> None:
        """Write `kubernetes.yml`.

        Changes are merged into `default`, `tags` and `nodes`; other settings are replaced.
        """
        for name, value in changes.items():
            self.site[name] = {**self.site.get(name, {}), **value} if isinstance(value, dict) else value
        self.write(
            f"conf/{SITE}/kubernetes.yml", yaml.safe_dump({"image": self.image, "namespace": self.namespace, **self.site})
        )

    def write(self, path: str, content: str) -> None:
        """Write a file of the project."""
        target = self.folder / path
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(content)

    def change_owner(self) -> None:
        """Make the user of driver and pods the owner of all files."""
        for parent, _, files in os.walk(self.folder):
            for path in (Path(parent), *(Path(parent, name) for name in files)):
                os.chown(path, USER, USER, follow_symlinks=False)

    def environment(self, **more: str) -> dict[str, str]:
        """Return the environment variables of the driver."""
        own = {
            "HOME": str(self.folder / ".home"),
            "KUBECONFIG": str(self.cluster.kubeconfig),
            "PATH": f"{self.driver / 'bin'}:{os.environ['PATH']}",
            "PYTHONPATH": f"{self.folder / 'src'}:{self.folder}",
            "COLUMNS": "2000",  # rich must not wrap the lines that tests search for
            "DO_NOT_TRACK": "1",
        }
        return {**{k: v for k, v in os.environ.items() if not k.startswith("MLFLOW_")}, **own, **more}

    def start(self, *arguments: str, **environment: str) -> "Driver":
        """Start `kedro ...` without waiting."""
        self.change_owner()
        log, variables = self.folder / f".driver-{time.monotonic_ns()}.log", self.environment(**environment)
        if self.preloaded:
            return Driver(Command(["kedro", *arguments], self.folder, variables, log, launcher=AS_POD_USER), log)
        command = [*AS_POD_USER, str(self.driver / "bin/kedro"), *arguments]
        with log.open("w") as output:
            process = subprocess.Popen(
                command, cwd=self.folder, env=variables, stdout=output, stderr=subprocess.STDOUT, start_new_session=True
            )
        return Driver(process, log)

    def run(self, *arguments: str, seconds: float = DRIVER_SECONDS, **environment: str) -> "Driver":
        """Run `kedro run` on the cluster and wait for its end."""
        driver = self.start(*self.on_cluster(*arguments), **environment)
        driver.wait(seconds)
        return driver

    @staticmethod
    def on_cluster(*arguments: str) -> list[str]:
        """Return the arguments of `kedro` for a run on the cluster."""
        return ["run", "--runner=kubernetes", f"--runner-params=site={SITE}", *arguments]

    def read(self, path: str) -> bytes:
        """Return a file of `data/`."""
        return (self.folder / "data" / path).read_bytes()

    def account(self, name: str, rules: list[dict[str, Any]]) -> Path:
        """Create a service account with the permissions `rules`; return a kubeconfig with its token."""
        where = {"name": name, "namespace": self.namespace}
        group = "rbac.authorization.k8s.io"
        self.cluster.apply(
            {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": where},
            {"apiVersion": f"{group}/v1", "kind": "Role", "metadata": where, "rules": rules},
            {
                "apiVersion": f"{group}/v1",
                "kind": "RoleBinding",
                "metadata": where,
                "roleRef": {"apiGroup": group, "kind": "Role", "name": name},
                "subjects": [{"kind": "ServiceAccount", **where}],
            },
        )
        token = self.cluster.kubectl("create", "token", name, f"--namespace={self.namespace}").strip()
        path = self.folder / f".home/{name}.kubeconfig"
        write_kubeconfig(path, token, self.cluster.identities / "ca.crt", self.namespace)
        return path

    # --- objects in the cluster ---

    def jobs(self) -> list[dict[str, Any]]:
        """Return the Jobs of the namespace."""
        return list(self.cluster.read(f"/apis/batch/v1/namespaces/{self.namespace}/jobs").json()["items"])

    def pods(self, phase: str = "") -> list[dict[str, Any]]:
        """Return the pods of the namespace; with `phase`, those in that phase that are not being deleted."""
        found = self.cluster.read(f"/api/v1/namespaces/{self.namespace}/pods").json()["items"]
        return [
            p for p in found if phase in ("", p["status"].get("phase")) and not (phase and "deletionTimestamp" in p["metadata"])
        ]

    def wait_for_pod(self, phase: str = "Running", name: str = "", seconds: float = 120) -> str:
        """Wait until a pod whose name starts with `name` is in a phase; return its name."""
        end = time.monotonic() + seconds
        while not (found := [p["metadata"]["name"] for p in self.pods(phase) if p["metadata"]["name"].startswith(name)]):
            assert time.monotonic() < end, f"no pod {name}… is {phase} after {seconds} s: {self.describe()}"
            time.sleep(0.1)
        return str(found[0])

    def wait_for_log(self, text: str, seconds: float = 120) -> None:
        """Wait until the log of any pod contains `text`."""
        end = time.monotonic() + seconds
        while not any(text in self.log(p["metadata"]["name"]) for p in self.pods()):
            assert time.monotonic() < end, f"no log contains {text!r} after {seconds} s: {self.describe()}"
            time.sleep(0.2)

    def log(self, pod: str) -> str:
        """Return the log of a pod; nothing while it has none."""
        answer = self.cluster.read(f"/api/v1/namespaces/{self.namespace}/pods/{pod}/log")
        return answer.text if answer.ok else ""

    def describe(self) -> str:
        """Return objects and logs for the message of a failed test."""
        pods = self.cluster.try_kubectl("get", "jobs,pods,events", f"--namespace={self.namespace}").stdout
        return pods + "".join(self.log(p["metadata"]["name"])[-1500:] for p in self.pods())


def finished_pod(cluster: Cluster, namespace: str, name: str, seconds: float = 120) -> dict[str, Any]:
    """Wait for the end of a pod; return it."""
    end = time.monotonic() + seconds
    while (found := cluster.read(f"/api/v1/namespaces/{namespace}/pods/{name}").json())["status"].get("phase") not in (
        "Succeeded",
        "Failed",
    ):
        assert time.monotonic() < end, cluster.kubectl("describe", "pod", name, f"--namespace={namespace}")
        time.sleep(0.1)
    return dict(found)


class Driver:
    """A `kedro` process and its output."""

    def __init__(self, process: Command | subprocess.Popen[bytes], log: Path) -> None:
        self.process, self.log = process, log

    @property
    def output(self) -> str:
        """The complete output."""
        return self.log.read_text(errors="replace") if self.log.exists() else ""

    @property
    def last_line(self) -> str:
        """The last line of the output."""
        lines = self.output.strip().splitlines()
        return lines[-1] if lines else ""

    @property
    def code(self) -> int | None:
        """The exit code; None while the process runs."""
        return self.process.poll()

    def wait(self, seconds: float = DRIVER_SECONDS) -> int:
        """Wait for the end of the process; kill it and fail with its output after `seconds`."""
        try:
            return self.process.wait(seconds)
        except (subprocess.TimeoutExpired, TimeoutError):
            self.kill()
            raise AssertionError(f"the driver has not ended after {seconds} s; its output:\n{self.output[-4000:]}") from None

    def wait_for(self, text: str, seconds: float = 180) -> None:
        """Wait until the output contains `text`."""
        end = time.monotonic() + seconds
        while text not in self.output:
            assert self.code is None, f"the driver ended ({self.code}) without {text!r} in its output:\n{self.output[-4000:]}"
            assert time.monotonic() < end, f"the output has no {text!r} after {seconds} s:\n{self.output[-4000:]}"
            time.sleep(0.1)

    def interrupt(self) -> None:
        """Send SIGINT, as Ctrl-C does."""
        os.killpg(self.process.pid, signal.SIGINT)

    def kill(self) -> None:
        """Kill the process, as the loss of its machine would."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait(KILL_SECONDS)


def chain_clone(target: Path) -> Path:
    """Copy fourfold with the tiny environment and a longer pretraining into a new repository."""
    tiny_clone(target, pretraining=LONGER)
    (target / ".home").mkdir()
    return target


@contextlib.contextmanager
def miniature(folder: Path, cluster: Cluster, namespace: str, empty_store: Path) -> Iterator[Project]:
    """Yield a miniature project with its image, its volume and its `kubernetes.yml`."""
    project = Project(folder, cluster, namespace)
    shutil.copytree(MINIATURE, folder, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(CHECKOUT / "conf/logging.yml", folder / "conf")  # without it, the log lines of the runner are not shown
    for name in ("conf/local", "data", ".home"):
        (folder / name).mkdir(exist_ok=True)
    shutil.copytree(CHECKOUT / "src/fourfold_ops", folder / "src/fourfold_ops", ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(empty_store, folder / "data/mlflow.db")
    project.image = cluster.put_project("miniature", folder)
    cluster.volume(namespace, "data", folder / "data")
    project.configure()
    try:
        yield project
    finally:
        shutil.rmtree(folder, ignore_errors=True)
