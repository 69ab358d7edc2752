"""The server of `kedro demo`: several models in their processes, over HTTP, without a browser."""

import json
from pathlib import Path
from typing import ClassVar

import pytest
import requests
from echo_registry import Served

from fourfold_ops.errors import UserError
from fourfold_ops.server import pool as pools
from fourfold_ops.server.batching import Limits
from fourfold_ops.server.demo import create_demo
from fourfold_ops.server.demo_command import _versions
from fourfold_ops.server.pool import Choice, Pool
from fourfold_ops.server.process import FolderSpec, ModelProcess


class Page:
    def __init__(self, folder: Path) -> None:
        self.folder = folder
        (folder / "index.html").write_text("<!doctype html><title>echo</title>")

    def about(self):
        return {"title": "echo"}

    def describe(self, description):
        return description["inputs"]

    def present(self, outputs):
        return {"shown": outputs}

    def read(self, name, content):
        if not content:
            raise ValueError(f"The file of {name} is empty.\nChoose another one.")
        return {"name": name, "content": content if isinstance(content, list) else content.decode()}


class Version:
    """A stand-in for the process of a version: adds its number to what is asked; version 9 cannot be loaded."""

    name = "echo"
    description: ClassVar = {"inputs": ["caption"]}

    def __init__(self, number):
        self.number, self.is_stopped = number, False

    async def start(self):
        if self.number == "9":
            raise UserError("Version 9 of the model echo cannot be loaded.", "Choose another version.")

    async def answer(self, requests):
        return [(200, json.dumps({"outputs": {"size": int(self.number) + len(body)}}).encode()) for _, body in requests]

    async def stop(self):
        self.is_stopped = True


def process(name, number, environment, folder):
    return ModelProcess(name, number, environment, folder) if folder else Version(number)


@pytest.fixture(scope="module")
def served(registry, tmp_path_factory):
    folder = tmp_path_factory.mktemp("echo")
    (folder / "config.json").write_text('{"offset": 300}')
    spec = FolderSpec(str(folder), "echo_folder.Echo", {"targets": ["size"], "seed": 0})
    (folder / "code").mkdir()
    source = (registry.folder / "code/echo_model/__init__.py").read_text()
    source += "\n    input_kinds, targets = {'caption': 'str'}, ['size', 'texts']\n"
    (folder / "code/echo_folder.py").write_text(source)
    choices = [Choice("1", "echo", ("champion",)), Choice("2", "echo"), Choice("folder", str(folder), folder=spec)]
    choices += [Choice("9", "echo")]
    environment = {"PYTHONPATH": f"{folder / 'code'}:{Path(__file__).parents[3] / 'src'}"}
    models = Pool(lambda: choices, environment, Limits(max_body_bytes=1000))
    patch = pytest.MonkeyPatch()
    patch.setattr(pools, "ModelProcess", process)
    server = Served(create_demo(models, Page(tmp_path_factory.mktemp("page"))))
    server.models = models
    yield server
    server.stop()
    patch.undo()


def asked(served, model, caption="abc", **params):
    return served.post(f"/api/models/{model}/predict", {"inputs": {"caption": caption}, "params": params})


def test_page_is_served_and_may_load_nothing_from_elsewhere(served):
    page = requests.get(served.url, timeout=60)
    assert page.status_code == 200 and "<title>echo</title>" in page.text
    assert "default-src 'self'" in page.headers["Content-Security-Policy"]
    assert requests.get(f"{served.url}/api/about", timeout=60).json() == {"title": "echo"}
    missing = requests.get(f"{served.url}/../secret.txt", timeout=60)
    assert missing.status_code == 404 and missing.json() == {"error": "GET /secret.txt: Not Found. Open / for the page."}


def test_each_model_answers_from_its_own_process(served, monkeypatch):
    monkeypatch.setattr(pools, "MAX_PROCESSES", 2)
    listed = requests.get(f"{served.url}/api/models", timeout=60).json()
    assert listed[0] == {"id": "1", "name": "echo", "aliases": ["champion"], "marks": []}
    assert requests.get(f"{served.url}/api/models/1", timeout=60).json() == ["caption"]
    sizes = [asked(served, number).json()["shown"]["size"] for number in (1, 2)]
    assert sizes[1] == sizes[0] + 1
    first = served.models._running["1"].batcher.process
    assert asked(served, "folder", seed=1, targets=["size", "texts"]).json() == {"shown": {"size": 304, "texts": "abc"}}
    assert list(served.models._running) == ["2", "folder"] and first.is_stopped  # the third one replaced it
    wrong = asked(served, "folder", sead=1)
    assert wrong.status_code == 400 and wrong.json()["error"].startswith("Unknown parameter 'sead'. Did you mean 'seed'?")


def test_versions_with_an_alias_are_listed_the_champion_first(registry, monkeypatch):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", registry.uri)

    def listed(wanted=""):
        choices, environment = _versions("echo", wanted, None)
        assert environment["MLFLOW_TRACKING_URI"] == registry.uri
        return [(choice.id, choice.aliases) for choice in choices()]

    for alias, number in (("candidate", "2"), ("champion", "1"), ("previous", "2")):
        registry.client.set_registered_model_alias("echo", alias, number)
    assert listed() == [("1", ("champion",)), ("2", ("candidate", "previous"))]
    assert listed("candidate") == listed("2") == [("2", ("candidate", "previous"))]
    for alias in ("candidate", "champion", "previous"):
        registry.client.delete_registered_model_alias("echo", alias)
    assert listed() == [("2", ())]  # the newest
    registry.champion(1)
    with pytest.raises(UserError, match="no version or alias '7'"):
        listed("7")


def test_wrong_requests_get_one_sentence(served):
    unknown = requests.get(f"{served.url}/api/models/7", timeout=60)
    assert unknown.status_code == 400
    assert unknown.json() == {"error": "There is no model '7'. Choose one of 1, 2, folder, 9."}
    assert asked(served, "folder", targets=["x"]).json() == {"error": "Unknown target 'x'. Known: size, texts."}
    assert asked(served, "folder", "fail").status_code == 500
    large = asked(served, "2", "a" * 2000)
    assert large.status_code == 413 and "up to 0.001 MB" in large.json()["error"]
    broken = asked(served, "9")
    assert (
        broken.status_code == 400
        and broken.json()["error"] == "Version 9 of the model echo cannot be loaded. Choose another version."
    )
    assert asked(served, "9").status_code == 400  # and it is tried again


@pytest.mark.parametrize(
    ("content", "kind", "status", "answer"),
    [
        (b"abc", "application/octet-stream", 200, {"name": "rgb", "content": "abc"}),
        (json.dumps([[1, 2]]), "application/json", 200, {"name": "rgb", "content": [[1, 2]]}),
        (b"", "application/octet-stream", 400, {"error": "The file of rgb is empty. Choose another one."}),
        (b"{", "application/json", 400, None),
        (b"abc", "text/html", 415, None),
    ],
)
def test_inputs_are_read(served, content, kind, status, answer):
    found = requests.post(f"{served.url}/api/read/rgb", data=content, headers={"Content-Type": kind}, timeout=60)
    assert found.status_code == status
    assert found.json() == answer if answer else list(found.json()) == ["error"]
