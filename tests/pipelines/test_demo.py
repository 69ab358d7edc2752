"""The command `kedro demo` on a finished run, and what it refuses."""

import base64
import os
import re
import signal
import socket
import time
from pathlib import Path

import numpy as np
import preloaded
import pytest
import requests

from fourfold.data.codecs import decode
from fourfold.generation.serving import ServedModel
from fourfold_ops.errors import UserError
from pipelines.cli import cli

ROOT = Path(__file__).parents[2]
TARGETS = ["depth", "semseg", "caption"]


def started(folder: Path, log: Path, *options: str) -> tuple[preloaded.Command, str]:
    environment = {**os.environ, "PYTHONPATH": f"{ROOT / 'src'}{os.pathsep}{ROOT}"}
    environment.pop("MLFLOW_TRACKING_URI", None)
    command = preloaded.Command(["kedro", "demo", "--env=tiny", "--port=0", *options], folder, environment, log)
    deadline = time.monotonic() + 300
    while not (found := re.search(r"open (http://[\d.:]+) in a browser", command.text())):
        assert time.monotonic() < deadline and command.poll() is None, command.text()
        time.sleep(0.05)
    return command, found.group(1)


@pytest.mark.parametrize("options", [[], ["--model=data/04_models/any_to_any"]], ids=["registered", "folder"])
def test_command_shows_a_model_and_ends_on_ctrl_c(finished, tmp_path, options):
    command, url = started(finished, tmp_path / "log", *options)
    try:
        about = requests.get(f"{url}/api/about", timeout=300).json()
        assert about["named"] is (not options) and len(about["examples"]) == 8
        [model] = requests.get(f"{url}/api/models", timeout=300).json()
        assert model["id"] == ("folder" if options else "1") and (options or model["aliases"] == ["candidate"])
        assert requests.get(f"{url}/api/models/{model['id']}", timeout=300).json()["outputs"][:2] == ["rgb", "depth"]
        image = about["examples"][0]["rgb"]["file"]["base64"]
        request = {"inputs": {"rgb": image}, "params": {"targets": TARGETS, "preset": "dense", "seed": 3}}
        shown = requests.post(f"{url}/api/models/{model['id']}/predict", json=request, timeout=300).json()
        own = ServedModel.load(finished / "data/04_models/any_to_any")
        expected = own.predict({"rgb": [base64.b64decode(image)]}, TARGETS, preset="dense", seed=3)
        for name in TARGETS:
            value = decode(name, base64.b64decode(shown[name]["file"]["base64"]))
            assert np.array_equal(value, expected[name][0]), name
        os.kill(command.pid, signal.SIGINT)
        assert command.wait(300) == 0, command.text()
        assert "Traceback" not in command.text()
    finally:
        command.kill()


def test_ctrl_c_does_not_wait_for_a_model_that_is_being_loaded(finished, tmp_path):
    command, url = started(finished, tmp_path / "log")
    try:
        [model] = requests.get(f"{url}/api/models", timeout=300).json()
        with socket.create_connection(("127.0.0.1", int(url.rpartition(":")[2]))) as browser:
            browser.sendall(f"GET /api/models/{model['id']} HTTP/1.1\r\nHost: demo\r\n\r\n".encode())
            time.sleep(0.5)
            os.kill(command.pid, signal.SIGINT)
            assert command.wait(300) == 0, command.text()
        assert "Traceback" not in command.text()
    finally:
        command.kill()


def refused(*options: str) -> str:
    with pytest.raises(UserError) as caught:
        cli.commands["demo"].callback(**{"env": None, "model": None, "host": "127.0.0.1", "port": 0} | dict(options))
    return f"{caught.value} {caught.value.remedy}"


def test_wrong_starts_are_refused(tmp_path, monkeypatch):
    monkeypatch.chdir(ROOT)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path / 'absent.db'}")
    with socket.create_server(("127.0.0.1", 0)) as taken:
        message = refused(("port", taken.getsockname()[1]))
    assert re.search(r"Address already in use\. Choose another one: --port=\d+ is free\.", message)
    assert refused(("model", "no/such")).startswith("There is no model folder no/such. Give --model a folder, or NAME@ALIAS")
    assert "absent.db does not exist" in refused(("model", "fourfold@champion"))
    monkeypatch.chdir(tmp_path)
    assert "has no `registered_model` with a loader" in refused(("model", "."))
