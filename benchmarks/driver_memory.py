"""Where the memory of a driver goes: what each part that it imports takes, then 200 pods whose logs it follows at once.

    python benchmarks/driver_memory.py

Every line is a process of its own, so that nothing is counted for what another import had brought along; the server of logs
is one more, on this machine and without TLS. Resident memory in MB; `make bench-cluster` has the peak of a whole drive.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib.abc import MetaPathFinder
from pathlib import Path

import psutil

PODS, LINES, LINE_SECONDS = 200, 20, 0.1
PARTS = {  # each after those before it, as a driver imports them
    "python": "",
    "kedro": "import kedro.framework.cli.project, kedro.framework.session",
    "the runner": "import fourfold_ops.kubernetes.plan.hook, fourfold_ops.kubernetes.driver.runner, rich.live",
    "the kubernetes client": "import kubernetes.client, kubernetes.config",
    "mlflow": "import mlflow",
    "its sqlite store": "mlflow.MlflowClient('sqlite:///' + FOLDER + '/mlflow.db').search_experiments()",
}
SKINNY = ("numpy", "pandas", "pyarrow", "scipy")
HEAVY = ("numpy", "pandas", "pyarrow", "scipy", "sqlalchemy", "fastapi", "torch")


class LeftOut(MetaPathFinder):
    """Lets nobody import what mlflow-skinny, which is the same code, is installed without."""

    def find_spec(self, fullname: str, path: object, target: object = None) -> None:
        """Refuse it as if it were not installed."""
        if fullname.split(".")[0] in SKINNY:
            raise ModuleNotFoundError(fullname, name=fullname)


def imported(count: int, skinny: bool) -> tuple[float, list[str]]:
    """Return the memory after the first `count` parts, and which heavy packages they have brought along."""
    if skinny:
        sys.meta_path.insert(0, LeftOut())
    scope = {"FOLDER": tempfile.mkdtemp()}
    for code in list(PARTS.values())[:count]:
        exec(code, scope)
    return resident(), [name for name in HEAVY if name in sys.modules]


def followed(url: str) -> tuple[float, float]:
    """Return the memory before and the peak while the logs of all pods are followed by the driver's own threads."""
    from fourfold_ops.kubernetes.cluster.client import Cluster
    from fourfold_ops.kubernetes.cluster.pod_logs import Follower

    folder = Path(tempfile.mkdtemp())
    config = {
        "current-context": "c",
        "clusters": [{"name": "c", "cluster": {"server": url}}],
        "users": [{"name": "c", "user": {}}],
        "contexts": [{"name": "c", "context": {"cluster": "c", "user": "c"}}],
    }
    (folder / "kubeconfig").write_text(json.dumps(config))
    os.environ["KUBECONFIG"] = str(folder / "kubeconfig")
    cluster = Cluster("ns")
    before = peak = resident()
    followers = [
        Follower(lambda since, n=n: cluster.log(f"p{n}", since), folder / f"p{n}.txt", lambda _: None) for n in range(PODS)
    ]
    for follower in followers:
        follower.start()
        follower.end()  # the stream is read to its end once
    while any(follower.is_alive() for follower in followers):
        peak = max(peak, resident())
        time.sleep(0.02)
    assert all(len((folder / f"p{n}.txt").read_text().splitlines()) == LINES for n in range(PODS))
    return before, peak


def resident() -> float:
    """Return this process's resident memory in MB."""
    return psutil.Process().memory_info().rss / 1e6


class Logs(BaseHTTPRequestHandler):
    """Streams a log, a line now and then."""

    def do_GET(self) -> None:
        """Answer any request with the same log."""
        self.send_response(200)
        self.end_headers()
        for number in range(LINES):
            self.wfile.write(f"2026-01-01T00:00:{number:02}.5Z training: {number}/{LINES} steps {'x' * 200}\n".encode())
            time.sleep(LINE_SECONDS)

    def log_message(self, *_: object) -> None:
        """Say nothing."""


class LogServer(ThreadingHTTPServer):
    """Takes all connections at once."""

    request_queue_size = 2 * PODS
    daemon_threads = True


def inside(*arguments: str) -> list[object]:
    """Run a part of this file in a process of its own and return what it found."""
    done = subprocess.run([sys.executable, __file__, "--inside", *arguments], capture_output=True, text=True, check=True)
    found: list[object] = json.loads(done.stdout.splitlines()[-1])
    return found


def main() -> None:
    """Print the table."""
    before = 0.0
    for count, name in enumerate(PARTS, start=1):
        memory, heavy = inside("import", str(count), "")
        print(f"{name:<24} {memory:6.0f} MB  {memory - before:+6.0f}  {', '.join(heavy)}")
        before = memory
    memory, heavy = inside("import", str(len(PARTS)), "skinny")
    print(f"{'all, with mlflow-skinny':<24} {memory:6.0f} MB  {memory - before:+6.0f}  {', '.join(heavy)}")
    with LogServer(("127.0.0.1", 0), Logs) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        start, peak = inside("follow", f"http://127.0.0.1:{server.server_port}")
        print(f"{PODS} logs at once: from {start:.0f} MB to {peak:.0f}, {peak - start:+.0f}")
        server.shutdown()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--inside", nargs="+", help=argparse.SUPPRESS)
    asked = parser.parse_args().inside
    if asked is None:
        main()
    elif asked[0] == "import":
        print(json.dumps(imported(int(asked[1]), bool(asked[2]))))
    else:
        print(json.dumps(followed(asked[1])))
