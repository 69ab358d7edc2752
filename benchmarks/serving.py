"""`kedro serve` under load: many clients, answered in batches and one by one.

    python benchmarks/serving.py                                  # the model of data/04_models/any_to_any, 200 clients, 60 s
    python benchmarks/serving.py --clients 8 --seconds 10

The model is registered in a temporary MLflow store and served by a separate process. Each client sends its next request as
soon as it has the answer: a PNG of random pixels, target depth. Reports requests per second, median and 95th percentile of
the seconds, errors (a status other than 200), answers that differ from the first answer to the same request, and the memory
of the server and of the process of the model at 20 % and at the end of the time. Clients and server share the cores. Prints
one JSON line.
"""

import argparse
import asyncio
import base64
import io
import json
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import aiohttp
import mlflow
import numpy as np
import psutil
from machine import describe
from PIL import Image

from fourfold_ops.cli.catalog import configuration
from fourfold_ops.registry.registered_model import RegisteredModelDataset
from fourfold_ops.tracking.run import ActiveRun, set_active_run

ROOT = Path(__file__).parents[1]
NUM_IMAGES = 32


def register(model: Path, folder: Path) -> str:
    """Register a model folder in a new store, as the catalog does; return the address of the store."""
    uri = f"sqlite:///{folder / 'mlflow.db'}"
    mlflow.set_tracking_uri(uri)
    mlflow.set_registry_uri(uri)
    client = mlflow.MlflowClient(uri)
    run = client.create_run(client.create_experiment("benchmark", (folder / "artifacts").as_uri()))
    entry = (configuration("catalog", start=ROOT) or {})["registered_model"]
    settings = {key: value for key, value in entry.items() if key not in ("type", "name")}
    set_active_run(ActiveRun(client, run.info.run_id))
    RegisteredModelDataset(name="benchmark", **settings).save(model)
    client.set_registered_model_alias("benchmark", "champion", "1")
    return uri


class Server:
    """`kedro serve` in a separate process."""

    def __init__(self, uri: str, max_batch: int) -> None:
        command = [str(Path(sys.executable).parent / "kedro"), "serve", "--model=benchmark@champion", "--port=0"]
        self.process = subprocess.Popen(
            [*command, f"--max-batch={max_batch}"],
            cwd=ROOT,
            env=os.environ | {"MLFLOW_TRACKING_URI": uri},
            stdout=subprocess.PIPE,
            text=True,
        )
        assert self.process.stdout is not None
        found = next(filter(None, (re.search(r"http://[\w.:]+", line) for line in self.process.stdout)))
        self.url = found.group(0)

    def megabytes(self) -> dict[str, int]:
        """Return the resident memory of the server and of the process of the model."""
        server = psutil.Process(self.process.pid)
        model = sum(child.memory_info().rss for child in server.children(recursive=True))
        return {"server": server.memory_info().rss >> 20, "model": model >> 20}

    def stop(self) -> None:
        self.process.send_signal(signal.SIGTERM)
        status = self.process.wait(60)
        assert status == 0, f"the server ended with {status}"


def bodies() -> list[bytes]:
    """Return requests with different images; the seed of each is its number."""
    rng = np.random.default_rng(0)
    found = []
    for number in range(NUM_IMAGES):
        buffer = io.BytesIO()
        Image.fromarray(rng.integers(0, 256, (64, 64, 3), np.uint8)).save(buffer, "PNG")
        inputs = {"rgb": base64.b64encode(buffer.getvalue()).decode()}
        found.append(json.dumps({"inputs": inputs, "params": {"targets": ["depth"], "seed": number, "format": "png"}}).encode())
    return found


async def load(server: Server, clients: int, seconds: float) -> dict[str, Any]:
    """Send requests from all clients for some seconds; return what was measured."""
    requests, spent, faults, answers = bodies(), [], [], {}
    memory: dict[str, dict[str, int]] = {}
    different = [0]
    headers = {"Content-Type": "application/json"}
    connector = aiohttp.TCPConnector(limit=0)
    async with aiohttp.ClientSession(server.url, connector=connector, timeout=aiohttp.ClientTimeout(120)) as session:
        while (await session.get("/ready")).status != 200:
            await asyncio.sleep(0.1)
        end = time.perf_counter() + seconds

        async def client(first: int) -> None:
            number = first
            while time.perf_counter() < end:
                began = time.perf_counter()
                which = number % NUM_IMAGES
                async with session.post("/predict", data=requests[which], headers=headers) as response:
                    content = await response.read()
                    if response.status != 200:
                        faults.append(f"{response.status} {content[:200]!r}")
                    different[0] += response.status == 200 and answers.setdefault(which, content) != content
                spent.append(time.perf_counter() - began)
                number += 1

        async def look() -> None:
            await asyncio.sleep(seconds / 5)
            memory["early"] = server.megabytes()
            await asyncio.sleep(seconds * 0.78)
            memory["end"] = server.megabytes()

        began = time.perf_counter()
        await asyncio.gather(look(), *(client(number) for number in range(clients)))
        whole = time.perf_counter() - began
    median, high = (round(float(np.percentile(spent, q)), 3) for q in (50, 95))
    report = {"requests": len(spent), "requests_per_second": round(len(spent) / whole, 1), "median_s": median, "p95_s": high}
    return report | {"errors": len(faults), "first_errors": faults[:3], "different_answers": different[0], "megabytes": memory}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, default=ROOT / "data/04_models/any_to_any")
    parser.add_argument("--clients", type=int, default=200)
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--max-batch", type=int, nargs="+", default=[16, 1])
    options = parser.parse_args()
    report: dict[str, Any] = {
        "benchmark": "serving",
        "machine": describe(),
        "clients": options.clients,
        "seconds": options.seconds,
    }
    with tempfile.TemporaryDirectory() as folder:
        uri = register(options.model.resolve(), Path(folder))
        for size in options.max_batch:
            server = Server(uri, size)
            try:
                report[f"max_batch={size}"] = asyncio.run(load(server, options.clients, options.seconds))
                print(f"max_batch={size}: {report[f'max_batch={size}']}", file=sys.stderr)
            finally:
                server.stop()
    print(json.dumps(report))


if __name__ == "__main__":
    main()
