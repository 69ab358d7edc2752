"""Measures the resident memory of a driver in MB: by imported package, and while it follows the logs of 200 pods.

    python benchmarks/driver_memory.py

Every line is measured in a separate process, so that no import hides another one. The logs come from a server on this
machine without TLS. `make bench-cluster` measures the peak of a whole run.
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
PARTS = {  # imported one after another, as in a driver
    "python": "",
    "kedro": "import kedro.framework.cli.project, kedro.framework.session",
    "the runner": "import fourfold_ops.kubernetes.plan.hook, fourfold_ops.kubernetes.driver.runner, rich.live",
    "the kubernetes client": "import kubernetes.client, kubernetes.config",
    "mlflow": "import mlflow",
    "its sqlite store": "mlflow.MlflowClient('sqlite:///' + FOLDER + '/mlflow.db').search_experiments()",
}
SKINNY = ("numpy", "pandas", "pyarrow", "scipy")
HEAVY = ("numpy", "pandas", "pyarrow", "scipy", "sqlalchemy", "fastapi", "torch")


class BlockedImports(MetaPathFinder):
    """Blocks imports of the packages that mlflow-skinny, which has the same code, does not install."""

    def find_spec(self, fullname: str, path: object, target: object = None) -> None:
        """Raise the error of a package that is not installed."""
        if fullname.split(".")[0] in SKINNY:
            raise ModuleNotFoundError(fullname, name=fullname)


def measure_imports(count: int, skinny: bool) -> tuple[float, list[str]]:
    """Return the memory after importing the first `count` parts, and the heavy packages that were imported."""
    if skinny:
        sys.meta_path.insert(0, BlockedImports())
    scope = {"FOLDER": tempfile.mkdtemp()}
    for code in list(PARTS.values())[:count]:
        exec(code, scope)
    return resident(), [name for name in HEAVY if name in sys.modules]


def measure_following(url: str) -> tuple[float, float]:
    """Return the memory before following the logs of all pods, and the peak while following them."""
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
        follower.end()  # read the stream to its end once
    while any(follower.is_alive() for follower in followers):
        peak = max(peak, resident())
        time.sleep(0.02)
    assert all(len((folder / f"p{n}.txt").read_text().splitlines()) == LINES for n in range(PODS))
    return before, peak


def resident() -> float:
    """Return the resident memory of this process in MB."""
    return psutil.Process().memory_info().rss / 1e6


class Logs(BaseHTTPRequestHandler):
    """Streams a log line by line."""

    def do_GET(self) -> None:
        """Answer every request with the same log."""
        self.send_response(200)
        self.end_headers()
        for number in range(LINES):
            self.wfile.write(f"2026-01-01T00:00:{number:02}.5Z training: {number}/{LINES} steps {'x' * 200}\n".encode())
            time.sleep(LINE_SECONDS)

    def log_message(self, *_: object) -> None:
        """Do not log requests."""


class LogServer(ThreadingHTTPServer):
    """Accepts all connections at once."""

    request_queue_size = 2 * PODS
    daemon_threads = True


def in_new_process(*arguments: str) -> list[object]:
    """Run a part of this file in a separate process and return its result."""
    done = subprocess.run([sys.executable, __file__, "--inside", *arguments], capture_output=True, text=True, check=True)
    result: list[object] = json.loads(done.stdout.splitlines()[-1])
    return result


def main() -> None:
    """Print the table."""
    before = 0.0
    for count, name in enumerate(PARTS, start=1):
        memory, heavy = in_new_process("import", str(count), "")
        print(f"{name:<24} {memory:6.0f} MB  {memory - before:+6.0f}  {', '.join(heavy)}")
        before = memory
    memory, heavy = in_new_process("import", str(len(PARTS)), "skinny")
    print(f"{'all, with mlflow-skinny':<24} {memory:6.0f} MB  {memory - before:+6.0f}  {', '.join(heavy)}")
    with LogServer(("127.0.0.1", 0), Logs) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        start, peak = in_new_process("follow", f"http://127.0.0.1:{server.server_port}")
        print(f"following {PODS} logs: from {start:.0f} MB to {peak:.0f} MB, {peak - start:+.0f}")
        server.shutdown()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--inside", nargs="+", help=argparse.SUPPRESS)
    arguments = parser.parse_args().inside
    if arguments is None:
        main()
    elif arguments[0] == "import":
        print(json.dumps(measure_imports(int(arguments[1]), bool(arguments[2]))))
    else:
        print(json.dumps(measure_following(arguments[1])))
