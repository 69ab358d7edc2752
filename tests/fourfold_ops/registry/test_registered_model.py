import json
import subprocess
import sys

import numpy as np
import pytest

from fourfold_ops.registry.registered_model import RegisteredModelDataset
from fourfold_ops.tracking.run import ActiveRun, set_active_run

MODEL = """
import json
import numpy as np


class Echo:
    def __init__(self, offset):
        self.offset = offset

    @classmethod
    def load(cls, folder):
        return cls(json.loads((folder / "config.json").read_text())["offset"])

    def predict(self, conditions, targets, seed=0):
        told = {k: v if isinstance(v, list) else [str(v.dtype), list(v.shape), int(v.sum())] for k, v in conditions.items()}
        return {target: [told, self.offset + seed] for target in targets}
"""
USE = """
import sys
import numpy as np
import mlflow
mlflow.set_tracking_uri(sys.argv[1])
model = mlflow.pyfunc.load_model("models:/echo@candidate")
import json
print(json.dumps(model.predict({"caption": ["a", "b"]}, params={"targets": ["x"], "seed": 5})))
"""


@pytest.fixture
def store(tmp_path, empty_store, monkeypatch):
    """An MLflow store with one active run, and a package that exists only in this test."""
    import shutil

    import mlflow

    uri = f"sqlite:///{tmp_path / 'mlflow.db'}"
    shutil.copy(empty_store, tmp_path / "mlflow.db")
    (tmp_path / "code/echo_model").mkdir(parents=True)
    (tmp_path / "code/echo_model/__init__.py").write_text(MODEL)
    monkeypatch.syspath_prepend(str(tmp_path / "code"))
    mlflow.set_tracking_uri(uri)
    mlflow.set_registry_uri(uri)
    client = mlflow.MlflowClient(uri)
    experiment = client.create_experiment("e", (tmp_path / "artifacts").as_uri())
    set_active_run(ActiveRun(client, client.create_run(experiment).info.run_id))
    yield client, uri
    set_active_run(None)
    sys.modules.pop("echo_model", None)


def folder_with(path, offset):
    path.mkdir(exist_ok=True)
    (path / "config.json").write_text(json.dumps({"offset": offset}))
    return path


@pytest.fixture
def dataset():
    inputs = {"caption": "str", "rgb": "uint8"}
    return RegisteredModelDataset("echo", "echo_model.Echo", inputs, params={"targets": ["caption"], "seed": 0})


def test_aliases_move_and_equal_content_is_no_new_version(store, dataset, tmp_path):
    client, _ = store
    dataset.save(folder_with(tmp_path / "model", 1))
    dataset.save(folder_with(tmp_path / "model", 1))
    assert client.get_registered_model("echo").aliases == {"candidate": 1, "champion": 1}
    dataset.save(folder_with(tmp_path / "model", 2))
    assert client.get_registered_model("echo").aliases == {"candidate": 2, "champion": 1}
    dataset.save(folder_with(tmp_path / "model", 1))
    assert client.get_registered_model("echo").aliases == {"candidate": 1, "champion": 1}


def test_model_files_are_in_the_artifact_folder_of_the_experiment(store, dataset, tmp_path):
    dataset.save(folder_with(tmp_path / "model", 1))
    assert [path.name for path in (tmp_path / "artifacts").rglob("MLmodel")] == ["MLmodel"]


def test_registered_model_takes_any_subset_of_inputs(store, dataset, tmp_path):
    dataset.save(folder_with(tmp_path / "model", 1))
    model = dataset.load()
    assert {spec.name for spec in model.metadata.signature.inputs} == {"caption", "rgb"}
    rgb_BHWC = np.ones((2, 3, 3, 3), np.uint8)
    assert model.predict({"rgb": rgb_BHWC}) == {"caption": [{"rgb": ["uint8", [2, 3, 3, 3], 54]}, 1]}
    assert model.predict({"rgb": rgb_BHWC, "caption": ["a", "b"]}, params={"targets": ["y", "z"]})["z"][0]["caption"] == [
        "a",
        "b",
    ]
    assert model.predict({"caption": ["one"]})["caption"][0] == {"caption": ["one"]}


def test_registered_model_loads_without_its_package_installed(store, dataset, tmp_path):
    dataset.save(folder_with(tmp_path / "model", 1))
    options = {"cwd": tmp_path, "capture_output": True, "text": True, "timeout": 300}
    done = subprocess.run([sys.executable, "-c", USE, store[1]], **options)
    assert done.returncode == 0, done.stderr[-2000:]
    assert json.loads(done.stdout.splitlines()[-1]) == {"x": [{"caption": ["a", "b"]}, 6]}
