import json
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from kedro.io import DatasetError

from fourfold_ops.registry.confirmation import confirm
from fourfold_ops.registry.evidence import load_evidence
from fourfold_ops.registry.registered_model import RegisteredModelDataset
from fourfold_ops.tracking.run import ActiveRun, active_run, set_active_run

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
    parent = client.create_run(experiment).info.run_id
    set_active_run(ActiveRun(client, client.create_run(experiment, tags={"mlflow.parentRunId": parent}).info.run_id))
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


def registered(dataset, folder):
    """Save the model and end the run, as `kedro run` does."""
    dataset.save(folder)
    confirm(active_run().client, active_run().run_id)


def test_each_run_moves_the_candidate_and_equal_content_is_no_new_version(store, dataset, tmp_path):
    client, _ = store
    for offset, version in ((1, 1), (1, 1), (2, 2), (1, 1)):
        dataset.save(folder_with(tmp_path / "model", offset))
        before = client.get_registered_model("echo").aliases
        confirm(client, active_run().run_id)
        assert client.get_registered_model("echo").aliases == {"candidate": version}
        assert before != {"candidate": version} or offset == version == 1  # only the end of the run moves it


def test_model_files_are_in_the_artifact_folder_of_the_experiment(store, dataset, tmp_path):
    dataset.save(folder_with(tmp_path / "model", 1))
    assert [path.name for path in (tmp_path / "artifacts").rglob("MLmodel")] == ["MLmodel"]


def test_registered_model_takes_any_subset_of_inputs(store, dataset, tmp_path):
    registered(dataset, folder_with(tmp_path / "model", 1))
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
    registered(dataset, folder_with(tmp_path / "model", 1))
    options = {"cwd": tmp_path, "capture_output": True, "text": True, "timeout": 300}
    done = subprocess.run([sys.executable, "-c", USE, store[1]], **options)
    assert done.returncode == 0, done.stderr[-2000:]
    assert json.loads(done.stdout.splitlines()[-1]) == {"x": [{"caption": ["a", "b"]}, 6]}


def test_version_of_a_run_killed_before_its_end_is_completed(store, dataset, tmp_path):
    client, _ = store
    dataset.save(folder_with(tmp_path / "model", 1))  # killed here
    assert client.get_registered_model("echo").aliases == {}
    registered(dataset, folder_with(tmp_path / "model", 1))
    assert [version.version for version in client.search_model_versions("name = 'echo'")] == [1]
    assert client.get_registered_model("echo").aliases == {"candidate": 1}


@dataclass
class Publication:
    folder: Path
    evidence: dict[str, Any]


def test_evidence_is_kept_with_the_digest_of_the_files(store, dataset, tmp_path):
    client, _ = store
    score = {"value": 1.0, "lower_is_better": False, "data": "d", "replicates": [1.0, None]}
    evidence = {"subject": "m", "samples": 2, "metrics": {"score": score}}
    registered(dataset, Publication(folder_with(tmp_path / "model", 1), evidence))
    version = client.get_model_version("echo", "1")
    found = load_evidence(client, version.tags["lineage.run_id"])
    assert found.digest == version.tags["digest"] and found.metrics["score"].replicates == (1.0, None)


def test_evidence_of_another_form_registers_nothing(store, dataset, tmp_path):
    client, _ = store
    with pytest.raises(DatasetError, match="evidence of model 'echo' is no evidence"):
        dataset.save(Publication(folder_with(tmp_path / "model", 1), {"subject": "m"}))
    assert client.search_registered_models() == []
