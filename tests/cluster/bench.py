"""Measures the overhead of the runner: the time to the first line of a step, and 200 steps driven at once.

It needs a quiet machine. The overhead excludes the imports of the step's process, which it needs anywhere. Calls are
counted in the audit log of the API server. Runs are tracked in a SQLite file, as on one machine, and in an MLflow
server, as in a cluster, where the driver does not load a database library.

`--driver FOLDER` uses the kedro of another environment (docs/kubernetes.md, "Reduce the memory of the driver"), which
needs an MLflow server.
"""

import argparse
import contextlib
import itertools
import json
import shutil
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections import Counter
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path

import psutil
from ports import free_port
from projects import Driver, Project, miniature
from testcluster.cluster import Cluster, running
from testcluster.machine import HOST_ADDRESS

HERE = Path(sys.prefix)
REPEATS = 3
SERVER_SECONDS = 60
STEPS = 200
RESTRICTED = {"pod-security.kubernetes.io/enforce": "restricted"}


@contextlib.contextmanager
def project(cluster: Cluster, number: int, driver: Path) -> Iterator[Project]:
    """Yield a new miniature project in a new namespace."""
    import mlflow

    name = f"bench-{number}"
    cluster.apply({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name, "labels": RESTRICTED}})
    cluster.wait_for_account(name)
    folder = Path(tempfile.mkdtemp())
    mlflow.MlflowClient(f"sqlite:///{folder / 'mlflow.db'}").search_experiments()
    try:
        with miniature(folder / "project", cluster, name, folder / "mlflow.db") as made:
            made.driver, made.preloaded = driver, False  # imports and memory are part of the measurement
            yield made
    finally:
        cluster.kubectl("delete", "namespace", name)
        cluster.kubectl("delete", "persistentvolume", f"--selector=namespace={name}")
        shutil.rmtree(folder)


@contextlib.contextmanager
def record_server() -> Iterator[str]:
    """Yield the address of an MLflow server on this machine that driver and pods can reach."""
    port = free_port(host=HOST_ADDRESS)
    address, folder = f"http://{HOST_ADDRESS}:{port}", Path(tempfile.mkdtemp())
    command = [sys.executable, "-m", "mlflow", "server", f"--host={HOST_ADDRESS}", f"--port={port}", "--workers=1"]
    command += [f"--backend-store-uri=sqlite:///{folder / 'mlflow.db'}", f"--artifacts-destination={folder / 'artifacts'}"]
    with (folder / "log").open("w") as log:
        serving = subprocess.Popen([*command, f"--allowed-hosts={HOST_ADDRESS}:{port}"], stdout=log, stderr=subprocess.STDOUT)
    try:
        end = time.monotonic() + SERVER_SECONDS
        while not _is_healthy(address):
            assert serving.poll() is None and time.monotonic() < end, (folder / "log").read_text()[-3000:]
            time.sleep(0.5)
        yield address
    finally:
        serving.terminate()
        serving.wait()
        shutil.rmtree(folder)


def _is_healthy(address: str) -> bool:
    try:
        with urllib.request.urlopen(f"{address}/health", timeout=5) as answer:
            return bool(answer.status == 200)
    except (urllib.error.URLError, OSError):
        return False


def first_line(made: Project, **environment: str) -> dict[str, float]:
    """Run one step; return the duration of each phase in seconds."""
    begin = time.time()
    driver = made.run("--pipelines=training", "--params=training.seconds=0.0", **environment)
    assert driver.code == 0, driver.output
    (job,), (pod,) = made.jobs(), made.pods()
    ended = pod["status"]["containerStatuses"][0]["state"]["terminated"]
    log = made.cluster.kubectl("logs", pod["metadata"]["name"], f"--namespace={made.namespace}", "--timestamps")
    user_code = next(line for line in log.splitlines() if "training: 1/" in line)
    moments = [begin, *map(seconds, (job["metadata"]["creationTimestamp"], ended["startedAt"], user_code.split()[0]))]
    moments += [seconds(ended["finishedAt"]), time.time()]
    names = (
        "driver until it submits",
        "cluster until the process runs",
        "imports of the process",
        "the step",
        "driver until it ends",
    )
    return dict(zip(names, (after - before for before, after in itertools.pairwise(moments)), strict=True))


def many(made: Project, **environment: str) -> tuple[float, float, Counter[str]]:
    """Run 200 steps that do nothing; return seconds, the peak memory of the driver in MB, and its calls by verb."""
    folder = made.folder / "data/empty"
    folder.mkdir()
    for number in range(STEPS):
        (folder / f"{number}.json").write_text("{}")
    made.configure(
        command=["/usr/bin/true"], tags={"tiny": {"cpu": "20m", "memory": "20Mi"}}, pending_seconds=600, parallel_steps=STEPS
    )
    audit = made.cluster.folder / "audit.log"
    before, begin = audit.stat().st_size, time.monotonic()
    driver = made.start(*made.on_cluster("--pipelines=many"), **environment)
    peak = peak_memory(driver)
    assert driver.code == 0, driver.output[-3000:]
    with audit.open() as file:
        file.seek(before)
        # A stream is logged twice, at its start and at its end.
        calls = {call["auditID"]: call for call in map(json.loads, file)}.values()
    agents = [c for c in calls if "kubectl" not in c.get("userAgent", "") and "serviceaccount" not in c["user"]["username"]]
    return (
        time.monotonic() - begin,
        peak,
        Counter(_name(call["verb"], call["objectRef"]) for call in agents if "objectRef" in call),
    )


def _name(verb: str, about: dict[str, str]) -> str:
    return f"{verb} {'/'.join(filter(None, (about['resource'], about.get('subresource'))))}"


def peak_memory(driver: Driver) -> float:
    """Wait for the end of a driver; return its peak resident memory in MB."""
    peak = 0
    while driver.code is None:
        with contextlib.suppress(psutil.Error):
            peak = max(peak, psutil.Process(driver.process.pid).memory_info().rss)
        time.sleep(0.1)
    return peak / 1e6


def seconds(moment: str) -> float:
    """Return a timestamp of the API server or kubelet as Unix time."""
    return datetime.fromisoformat(moment.replace("Z", "+00:00")).timestamp()


def main(cluster: Cluster, driver: Path) -> None:
    """Print the measurements of a driver in the environment `driver`."""
    numbers = itertools.count()
    with record_server() as address:
        records = {} if driver != HERE else {"SQLite": {}}
        records |= {"an MLflow server": {"MLFLOW_TRACKING_URI": address}}
        for (record, variables), _ in itertools.product(records.items(), range(REPEATS)):
            with project(cluster, next(numbers), driver) as made:
                parts = first_line(made, **variables)
            overhead = parts["driver until it submits"] + parts["cluster until the process runs"]
            print(f"{record}: " + ", ".join(f"{name} {value:.1f} s" for name, value in parts.items()))
            print(f"    from `kedro run` to the first line of the step, without its imports: {overhead:.1f} s", flush=True)
        for record, variables in {**records, "no tracking": {"MINIATURE_UNTRACKED": "1"}}.items():
            with project(cluster, next(numbers), driver) as made:
                taken, peak, calls = many(made, **variables)
            print(f"{STEPS} steps, {record}: {taken:.0f} s, {taken / STEPS:.2f} s per step, ", end="")
            print(f"peak memory of the driver {peak:.0f} MB, {calls.total()} calls:")
            print("    " + ", ".join(f"{count} × {call}" for call, count in calls.most_common()), flush=True)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--driver", type=Path, default=HERE, help="environment of the driver; default: this one")
    chosen = parser.parse_args().driver.absolute()
    kept = running(kept=True)
    started = Cluster.attach(kept) if kept else Cluster.start()
    try:
        main(started, chosen)
    finally:
        if kept is None:
            started.stop()
