"""The command `kedro serve`: its start, its end, and what it refuses."""

import concurrent.futures
import os
import re
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
import requests

sys.path.insert(0, str(Path(__file__).parents[2] / "support"))
import preloaded

from fourfold_ops.errors import UserError
from fourfold_ops.server import worker
from fourfold_ops.server.command import STOPPING, serve

ROOT = Path(__file__).parents[3]


def refused(*arguments):
    with pytest.raises(UserError) as caught:
        serve.main(list(arguments), standalone_mode=False)
    return f"{caught.value} {caught.value.remedy}"


def test_wrong_starts_are_refused(registry, tmp_path, monkeypatch):
    monkeypatch.chdir(ROOT)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", registry.uri)
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        assert f"Cannot listen at 127.0.0.1:{port}: Address already in use. Choose another" in refused(f"--port={port}")
    assert "The registry has no echo@campion" in refused("--model=echo@campion", "--port=0")
    assert "The registry has no fourfold@champion" in refused("--port=0")  # the name is that of the catalog
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path / 'absent.db'}")
    assert "absent.db does not exist. Run `kedro run` first" in refused("--port=0")
    assert not (tmp_path / "absent.db").exists()


def test_model_that_cannot_be_loaded_ends_the_server(registry, tmp_path, monkeypatch):
    monkeypatch.chdir(ROOT)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", registry.uri)
    (tmp_path / "broken.py").write_text("raise SystemExit(1)")
    monkeypatch.setattr(worker, "__file__", str(tmp_path / "broken.py"))
    assert refused("--model=echo@1", "--port=0").startswith("Version 1 of the model echo cannot be loaded: its process ended")


def test_sigterm_ends_the_server_after_the_answers(registry, tmp_path):
    command = preloaded.Command(
        ["kedro", "serve", "--model=echo@1", "--port=0"],
        ROOT,
        os.environ | {"MLFLOW_TRACKING_URI": registry.uri},
        tmp_path / "out",
    )
    try:
        deadline = time.monotonic() + 300
        while not (found := re.search(r"Serving echo@1 at (http://[\d.:]+)", command.text())):
            assert time.monotonic() < deadline and command.poll() is None, command.text()
            time.sleep(0.05)
        url = found.group(1)
        while requests.get(f"{url}/ready", timeout=300).status_code != 200:
            assert time.monotonic() < deadline, command.text()
            time.sleep(0.05)
        with concurrent.futures.ThreadPoolExecutor(3) as pool:
            body = {"inputs": {"caption": "abc"}, "params": {"wait": 0.5}}
            waiting = [pool.submit(requests.post, f"{url}/predict", json=body, timeout=300) for _ in range(3)]
            time.sleep(0.2)
            os.kill(command.pid, signal.SIGTERM)
            assert [one.result().json() for one in waiting] == [{"outputs": {"size": 103}}] * 3
        assert command.wait(300) == 0, command.text()
        with pytest.raises(requests.ConnectionError):
            requests.get(f"{url}/health", timeout=5)
    finally:
        command.kill()


SLOW = """
import asyncio, signal, socket, sys
from fastapi import FastAPI
from fourfold_ops.server.command import run_application

app = FastAPI()

@app.middleware("http")
async def through_streams(request, call_next):
    return await call_next(request)

@app.get("/")
async def never():
    signal.raise_signal(signal.SIGINT)
    await asyncio.sleep(600)

listener = socket.create_server(("127.0.0.1", 0))
print(listener.getsockname()[1], flush=True)
run_application(app, listener, patience=1)
"""


def test_request_that_the_end_of_the_server_cancels_is_answered_without_a_traceback():
    command = subprocess.Popen([sys.executable, "-c", SLOW], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    try:
        port = int(command.stdout.readline())
        answer = requests.get(f"http://127.0.0.1:{port}/", timeout=120)
        assert (answer.status_code, answer.json()) == (503, {"error": STOPPING})
        _, errors = command.communicate(timeout=120)
        assert command.returncode == 0 and "Traceback" not in errors, errors
    finally:
        command.kill()
