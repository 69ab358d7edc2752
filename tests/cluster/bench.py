"""What the runner costs: from `kedro run` to a step's first line, and 200 steps driven at once. It needs a quiet machine.

Overhead is what is left of a step's way when the time is taken out that its own process needs to import things, which it would
need anywhere. Calls are counted where they arrive, in the API server's audit log.
"""

import contextlib
import itertools
import json
import shutil
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path

import psutil
from projects import Driver, Project, miniature
from testcluster.cluster import Cluster, running

REPEATS = 3
STEPS = 200
RESTRICTED = {"pod-security.kubernetes.io/enforce": "restricted"}


@contextlib.contextmanager
def project(cluster: Cluster, number: int) -> Iterator[Project]:
    """Yield a fresh miniature in a namespace of its own."""
    import mlflow

    name = f"bench-{number}"
    cluster.apply({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name, "labels": RESTRICTED}})
    cluster.wait_for_account(name)
    folder = Path(tempfile.mkdtemp())
    mlflow.MlflowClient(f"sqlite:///{folder / 'mlflow.db'}").search_experiments()
    try:
        with miniature(folder / "project", cluster, name, folder / "mlflow.db") as made:
            yield made
    finally:
        cluster.kubectl("delete", "namespace", name)
        cluster.kubectl("delete", "persistentvolume", f"--selector=namespace={name}")
        shutil.rmtree(folder)


def first_line(made: Project) -> dict[str, float]:
    """Run one step; return the seconds of each part of its way."""
    begin = time.time()
    driver = made.run("--pipelines=training", "--params=training.seconds=0.0")
    assert driver.code == 0, driver.output
    (job,), (pod,) = made.jobs(), made.pods()
    ended = pod["status"]["containerStatuses"][0]["state"]["terminated"]
    said = made.cluster.kubectl("logs", pod["metadata"]["name"], f"--namespace={made.namespace}", "--timestamps")
    user_code = next(line for line in said.splitlines() if "training: 1/" in line)
    moments = [begin, *map(seconds, (job["metadata"]["creationTimestamp"], ended["startedAt"], user_code.split()[0]))]
    moments += [seconds(ended["finishedAt"]), time.time()]
    names = (
        "driver until it submits",
        "cluster until the process runs",
        "the process's own imports",
        "the step",
        "driver until it ends",
    )
    return dict(zip(names, (after - before for before, after in itertools.pairwise(moments)), strict=True))


def many(made: Project, **environment: str) -> tuple[float, float, Counter[str]]:
    """Drive 200 steps whose processes do nothing; return seconds, the driver's peak memory in MB, and its calls by verb."""
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
        calls = [json.loads(line) for line in file]
    agents = [c for c in calls if "kubectl" not in c.get("userAgent", "") and "serviceaccount" not in c["user"]["username"]]
    return (
        time.monotonic() - begin,
        peak,
        Counter(f"{c['verb']} {c['objectRef']['resource']}" for c in agents if "objectRef" in c),
    )


def peak_memory(driver: Driver) -> float:
    """Return the highest resident memory of a driver in MB, once it has ended."""
    peak = 0
    while driver.code is None:
        with contextlib.suppress(psutil.Error):
            peak = max(peak, psutil.Process(driver.process.pid).memory_info().rss)
        time.sleep(0.1)
    return peak / 1e6


def seconds(moment: str) -> float:
    """Return a moment of the API server or of kubelet in seconds."""
    return datetime.fromisoformat(moment.replace("Z", "+00:00")).timestamp()


def main(cluster: Cluster) -> None:
    """Print the figures."""
    for number in range(REPEATS):
        with project(cluster, number) as made:
            parts = first_line(made)
        print(f"run {number}: " + ", ".join(f"{name} {value:.1f} s" for name, value in parts.items()))
        overhead = parts["driver until it submits"] + parts["cluster until the process runs"]
        print(f"       from `kedro run` to the step's first line, without the step's imports: {overhead:.1f} s")
    for number, variables in enumerate(({}, {"MINIATURE_UNTRACKED": "1"}), start=REPEATS):
        with project(cluster, number) as made:
            taken, peak, calls = many(made, **variables)
        print(
            f"{STEPS} steps {'without' if variables else 'with'} MLflow: {taken:.0f} s, {taken / STEPS:.2f} s a step, "
            f"the driver's peak {peak:.0f} MB, {calls.total()} calls:"
        )
        print("       " + ", ".join(f"{count} × {call}" for call, count in calls.most_common()))


if __name__ == "__main__":
    kept = running(kept=True)
    started = Cluster.attach(kept) if kept else Cluster.start()
    try:
        main(started)
    finally:
        if kept is None:
            started.stop()
