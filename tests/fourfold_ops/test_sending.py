"""Runs that are recorded without the tracking server arrive there later, whole and once, also when sending is interrupted."""

import os
import shutil
from pathlib import Path

import mlflow
import pytest
from ports import free_port
from postgres import mlflow_server

from fourfold_ops import sending
from fourfold_ops.errors import UserError, one_line
from fourfold_ops.tracking import offline
from fourfold_ops.tracking.store import TrackingStore

OF_STORE = {"mlflow.parentRunId", "registered_model", "process", "lineage.run_id", "lineage.parent_run_id"}


class StoppedError(Exception):
    pass


class Failing:
    """A client that is interrupted in its n-th call that writes."""

    def __init__(self, inner, calls):
        self.inner, self.left = inner, calls

    def __getattr__(self, name):
        attribute = getattr(self.inner, name)
        if not callable(attribute):
            return attribute

        def call(*arguments, **named):
            if name.startswith(("log_", "set_", "create_", "finalize_", "update_")):
                self.left -= 1
                if self.left < 0:
                    raise StoppedError(name)
            return attribute(*arguments, **named)

        return call


@pytest.fixture
def project(publishing_miniature, monkeypatch):
    """A project whose server has an address, and does not run yet."""
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://127.0.0.1:{free_port()}")
    monkeypatch.setenv(offline.VARIABLE, "0")
    return publishing_miniature


def run_offline(project, size, patch):
    """Run without the server, as a process with `--offline-tracking` does."""
    with patch.context() as changed:
        changed.setenv(offline.VARIABLE, "1")
        changed.setenv("MLFLOW_TRACKING_URI", os.environ["MLFLOW_TRACKING_URI"])  # MLflow changes it
        project.run(runtime_params={"making": {"size": size}})


def runs_of(client):
    experiment = client.get_experiment_by_name("miniature").experiment_id
    return client.search_runs([experiment], order_by=["attributes.start_time ASC"])


def content(client, run, folder: Path):
    """Return everything of a run that must arrive, without ids and addresses of the store."""
    histories = {key: client.get_metric_history(run.info.run_id, key) for key in run.data.metrics}
    if client.list_artifacts(run.info.run_id):
        client.download_artifacts(run.info.run_id, "", str(folder))
    return {
        "info": (run.info.run_name, run.info.status, run.info.start_time, run.info.end_time),
        "params": run.data.params,
        "tags": {k: v for k, v in run.data.tags.items() if k not in OF_STORE and not k.startswith(("offline.", "mlflow.log"))},
        "metrics": {k: sorted((m.step, m.value, m.timestamp) for m in history) for k, history in histories.items()},
        "inputs": sorted((d.dataset.name, d.dataset.digest, d.tags[0].value) for d in run.inputs.dataset_inputs),
        "artifacts": {f.relative_to(folder).as_posix(): f.read_bytes() for f in folder.rglob("*") if f.is_file()},
    }


@pytest.mark.slow
def test_offline_runs_arrive_whole_and_once(project, tmp_path, empty_store, monkeypatch):
    # 1) Without the server, a run names the way out; with the option it is recorded here
    with pytest.raises(UserError) as error:
        project.run()
    assert "kedro run --offline-tracking" in one_line(error.value)
    (project.folder / offline.FOLDER).mkdir()
    shutil.copy(empty_store, project.folder / offline.FOLDER)  # a run would create it, which takes seconds
    for size in (3, 4):
        run_offline(project, size, monkeypatch)
    uri = f"sqlite:///{project.folder / offline.FOLDER / 'mlflow.db'}"
    source = mlflow.MlflowClient(uri, registry_uri=uri)
    # 2) The server starts, and the sending is interrupted again and again
    shutil.copy(empty_store, tmp_path / "server.db")
    port = int(os.environ["MLFLOW_TRACKING_URI"].rpartition(":")[2])
    with mlflow_server(tmp_path, f"sqlite:///{tmp_path / 'server.db'}", str(tmp_path / "kept"), port) as server:
        store = TrackingStore(project.folder, server, "miniature")
        target, interruptions = store.client, 0
        while True:
            store.client = Failing(target, 5 + 9 * interruptions)
            try:
                sent = sending.send_offline_runs(store)
                break
            except StoppedError:
                interruptions += 1
        store.client = target
        assert interruptions >= 3 and len(sent) >= 1
        # 3) Everything is there once
        originals, copies = runs_of(source), runs_of(target)
        assert len(originals) == len(copies) == 8
        for number, (original, copy) in enumerate(zip(originals, copies, strict=True)):
            assert copy.data.tags[sending.ORIGIN] == original.info.run_id
            places = [tmp_path / f"{side}{number}" for side in ("source", "target")]
            for place in places:
                place.mkdir()
            assert content(source, original, places[0]) == content(target, copy, places[1])
            parent = original.data.tags.get("mlflow.parentRunId")
            assert copy.data.tags.get("mlflow.parentRunId") == (parent and target_of(copies, parent))
        assert sending.send_offline_runs(store) == []
        check_models(source, target, copies)
        # 4) A later run sends what was recorded meanwhile; the candidate stays that of the latest run
        run_offline(project, 5, monkeypatch)
        with monkeypatch.context() as patch:
            patch.setattr("fourfold_ops.hooks.tracking.send_before_run", lambda store: None)
            project.run(runtime_params={"making": {"size": 2}})
        assert len(sending.send_offline_runs(store)) == 1
        assert mlflow.pyfunc.load_model("models:/sum@candidate").predict({"text": ["a"]}) == {"sum": [0 + 1]}
        run_offline(project, 6, monkeypatch)
        project.run(runtime_params={"making": {"size": 1}})
        parents = [run for run in runs_of(target) if "mlflow.parentRunId" not in run.data.tags]
        assert [sending.ORIGIN in run.data.tags for run in parents] == [True, True, True, False, True, False]
        assert mlflow.pyfunc.load_model("models:/sum@candidate").predict({"text": ["a"]}) == {"sum": [0]}


def target_of(copies, run_id):
    (found,) = [copy for copy in copies if copy.data.tags[sending.ORIGIN] == run_id]
    return found.info.run_id


def check_models(source, target, copies):
    """Compare the two versions: tags, files as the model that they load, and the candidate."""
    for number, total in ((1, 0 + 1 + 2), (2, 0 + 1 + 2 + 3)):
        mine, theirs = source.get_model_version("sum", str(number)), target.get_model_version("sum", str(number))
        assert {k: v for k, v in mine.tags.items() if k not in OF_STORE} == {
            k: v for k, v in theirs.tags.items() if k not in OF_STORE
        }
        assert theirs.tags["lineage.run_id"] == target_of(copies, mine.tags["lineage.run_id"])
        model = mlflow.pyfunc.load_model(f"models:/sum/{number}")
        assert model.predict({"text": ["a", "b"]}) == {"sum": [total, total]}
        assert model.metadata.run_id == theirs.run_id and model.metadata.model_id in theirs.source
    assert str(target.get_registered_model("sum").aliases["candidate"]) == "2"
    assert len(target.search_model_versions("name = 'sum'")) == 2
    experiment = target.get_experiment_by_name("miniature").experiment_id
    assert len(target.search_logged_models([experiment])) == 2
