"""A registered model of a few lines, and a server for an application of FastAPI."""

import json
import shutil
import socket
import threading
import time
from pathlib import Path
from typing import Any

import requests
import uvicorn

from fourfold_ops.registry.registered_model import RegisteredModelDataset
from fourfold_ops.tracking.run import ActiveRun, set_active_run

TABLES = [  # the forms of two samples in the protocol of MLflow
    {"dataframe_split": {"columns": ["caption"], "data": [["abc"], ["de"]]}},
    {"dataframe_records": [{"caption": "abc"}, {"caption": "de"}]},
    {"inputs": {"caption": ["abc", "de"]}},
    {"instances": [{"caption": "abc"}, {"caption": "de"}]},
]
MODEL = """
import json
import os
import time


class Echo:
    def __init__(self, offset):
        self.offset = offset

    @classmethod
    def load(cls, folder):
        return cls(json.loads((folder / "config.json").read_text())["offset"])

    def prepare(self, conditions, targets, seed=0, wait=0.0):
        unknown = [target for target in targets if target not in ("size", "texts")]
        if unknown:
            raise ValueError(f"Unknown target {unknown[0]!r}. Known: size, texts.")
        if "crash" in conditions.get("caption", ()):
            os._exit(1)
        return conditions, targets, seed, wait

    def answer(self, requests):
        time.sleep(max(wait for *_, wait in requests))
        return [self.one(*request) for request in requests]

    def one(self, conditions, targets, seed, wait):
        if "fail" in conditions.get("caption", ()):
            raise RuntimeError("secret /path/of/the/server")
        sizes = [self.offset + seed + sum(len(c) for c in row if c is not None) for row in zip(*conditions.values())]
        values = {"size": sizes, "texts": conditions.get("caption", [None] * len(sizes))}
        return {target: values[target] for target in targets}
"""
PARAMS = {"targets": ["size"], "seed": 0, "wait": None}
EXAMPLE = {"caption": "abc", "params": {"seed": 1}}


class Registry:
    """An MLflow store with the model `echo`; version 1 adds 100 to its answers, version 2 adds 200."""

    def __init__(self, folder: Path, empty_store: Path) -> None:
        import mlflow

        self.uri = f"sqlite:///{folder / 'mlflow.db'}"
        shutil.copy(empty_store, folder / "mlflow.db")
        self.folder = folder
        self.select()
        self.client = mlflow.MlflowClient(self.uri)
        self._run = self.client.create_run(self.client.create_experiment("e", (folder / "artifacts").as_uri())).info.run_id
        self.dataset = RegisteredModelDataset(
            "echo", "echo_model.Echo", {"caption": "str", "rgb": "uint8"}, params=PARAMS, example=EXAMPLE
        )

    def select(self) -> None:
        """Make this the store of the process."""
        import mlflow

        mlflow.set_tracking_uri(self.uri)
        mlflow.set_registry_uri(self.uri)

    def register(self, offset: int) -> None:
        folder = self.folder / "model"
        folder.mkdir(exist_ok=True)
        (folder / "config.json").write_text(json.dumps({"offset": offset}))
        set_active_run(ActiveRun(self.client, self._run))
        self.dataset.save(folder)
        set_active_run(None)

    def champion(self, number: int) -> None:
        self.client.set_registered_model_alias("echo", "champion", str(number))


class Served:
    """An application that a thread serves at a free port."""

    def __init__(self, app: Any) -> None:
        self._listener = socket.socket()
        self._listener.bind(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._listener.getsockname()[1]}"
        self._server = uvicorn.Server(uvicorn.Config(app, log_config=None, access_log=False))
        self._thread = threading.Thread(target=self._server.run, kwargs={"sockets": [self._listener]}, daemon=True)
        self._thread.start()
        self.wait_for("/health", 200)

    def wait_for(self, path: str, status: int, seconds: float = 60) -> None:
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            try:
                if requests.get(self.url + path, timeout=60).status_code == status:
                    return
            except requests.ConnectionError:
                pass
            time.sleep(0.05)
        raise AssertionError(f"{path} does not answer {status}")

    def post(self, path: str, body: Any = None, **options: Any) -> requests.Response:
        options = options if body is None else {"json": body, **options}
        return requests.post(self.url + path, timeout=60, **options)

    def stop(self) -> None:
        self._server.should_exit = True
        self._thread.join(30)
        assert not self._thread.is_alive()
