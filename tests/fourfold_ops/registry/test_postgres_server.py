"""The registry of a team: an MLflow server that keeps runs in Postgres and artifacts in an object store, whose keys it has."""

import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import mlflow
import pytest
from object_store import KEYS, object_store
from postgres import mlflow_on_postgres
from shelf import NAME, Shelf

from fourfold_ops.registry.history import History, OvertakenError
from fourfold_ops.registry.promotion import decide, promote, rollback
from fourfold_ops.registry.transfer import copy_version, open_registry
from fourfold_ops.registry.versions import ModelVersions

pytestmark = pytest.mark.slow
ROUNDS = 3


@pytest.fixture(scope="module")
def store():
    with object_store() as store:
        yield store


@pytest.fixture(scope="module")
def server(tmp_path_factory, store):
    folder = tmp_path_factory.mktemp("server")
    for parent in (folder, *folder.parents):  # another user runs Postgres, if this one is root
        if parent == folder or parent.name.startswith(("pytest", "popen")):  # never /tmp itself, also with --basetemp
            parent.chmod(0o755)
    with mlflow_on_postgres(folder, f"s3://{store.bucket}/mlflow", MLFLOW_S3_ENDPOINT_URL=store.address, **KEYS) as uri:
        yield uri


def opened(uri):
    models = open_registry(uri, NAME)
    return models, History(models.client, NAME)


@pytest.fixture
def on_server(server, tmp_path, shelf):
    """A shelf whose registry is the server; the one it uses otherwise is `shelf`."""
    (tmp_path / "team").mkdir()
    made = Shelf(tmp_path / "team", mlflow.MlflowClient(server, registry_uri=server))
    yield made
    for experiment in made.client.search_experiments():
        if experiment.name != "Default":
            made.client.rename_experiment(experiment.experiment_id, f"{experiment.name} of {tmp_path.name}")
    made.client.delete_registered_model(NAME)


def test_versions_are_promoted_refused_rolled_back_and_kept_in_the_history(server, on_server):
    for quality, passed in ((0.5, True), (0.4, False), (0.6, True)):
        on_server.add(quality)
        models, history = opened(server)
        decision = decide(models, history, "candidate", on_server.request())
        assert decision.passed == passed
        if passed:
            promote(models, history, decision, on_server.request())
    models, history = opened(server)
    assert models.aliases == {"candidate": "3", "champion": "3", "previous": "1"}
    rollback(models, history, on_server.project, "slow")
    assert opened(server)[0].aliases["champion"] == "1"
    assert [entry.action for entry in opened(server)[1].entries()] == ["promote", "promote", "rollback"]


def test_of_two_promotions_at_the_same_moment_exactly_one_wins(server, on_server):
    versions = {on_server.add(quality) for quality in (0.5, 0.6, 0.7)}
    both = threading.Barrier(2, timeout=60)
    request = on_server.request(force=True, reason="a race")

    def promoted(version):
        models, history = opened(server)
        decision = decide(models, history, version, request)
        both.wait()
        try:
            return promote(models, history, decision, request).to_version
        except OvertakenError:
            return None

    champion = "3"
    with ThreadPoolExecutor(2) as pool:
        for number in range(1, ROUNDS + 1):
            (champion,) = [version for version in pool.map(promoted, sorted(versions - {champion})) if version]
            models, history = opened(server)
            assert models.aliases["champion"] == champion
            assert len(history.entries()) == number and history.entries()[-1].to_version == champion


def test_a_run_and_its_model_are_recorded_through_the_server(server, store, publishing_miniature, monkeypatch):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", server)
    publishing_miniature.run()
    client, keys = mlflow.MlflowClient(server, registry_uri=server), store.names()
    (experiment,) = client.search_experiments(filter_string="name = 'miniature'")
    assert experiment.artifact_location.startswith("mlflow-artifacts:")
    (parent,) = [run for run in client.search_runs([experiment.experiment_id]) if "stage" not in run.data.tags]
    stored = [key.partition(f"{parent.info.run_id}/artifacts/")[2] for key in keys if parent.info.run_id in key]
    assert {"parameters.json", "provenance/packages.txt"} <= set(stored) and any(key.endswith("/MLmodel") for key in keys)
    assert mlflow.artifacts.load_dict(f"{parent.info.artifact_uri}/parameters.json")["making"] == {"size": 3}
    assert mlflow.pyfunc.load_model("models:/sum@candidate").predict({"text": ["a"]}) == {"sum": [0 + 1 + 2]}


def test_a_version_of_a_local_registry_arrives_with_its_files(server, store, on_server, shelf, tmp_path):
    from mlflow.artifacts import download_artifacts

    number = shelf.add(0.5)
    run_id = shelf.client.get_model_version(NAME, number).run_id
    shelf.client.log_text(run_id, "the weights", "model/weights/data.bin")
    source, request = ModelVersions(shelf.client, NAME), shelf.request()
    models, history = opened(server)
    decision = decide(models, history, number, request, source)
    assert decision.passed
    promote(models, history, decision, request, copy_version(source, decision.version, models))
    there = ModelVersions(models.client, NAME)
    uri = there.client.get_model_version_download_uri(NAME, there.aliases["champion"])
    assert there.client.get_run(there.get("champion").run_id).info.artifact_uri.startswith("mlflow-artifacts:")
    folder = download_artifacts(artifact_uri=uri, dst_path=str(tmp_path / "copy"), tracking_uri=server)
    assert (Path(folder) / "weights/data.bin").read_text() == "the weights"
    assert any(key.endswith("weights/data.bin") for key in store.names())
