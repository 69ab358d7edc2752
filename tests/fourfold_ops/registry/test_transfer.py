"""Promotion into the registry of another server: files, origin and evidence arrive there, and its champion counts."""

import shutil
from pathlib import Path

import pytest
from shelf import NAME

from fourfold_ops.errors import UserError
from fourfold_ops.registry.history import History
from fourfold_ops.registry.promotion import decide, promote
from fourfold_ops.registry.transfer import copy_version, open_registry
from fourfold_ops.registry.versions import ModelVersions
from fourfold_ops.tracking import names


@pytest.fixture
def target(tmp_path, empty_store):
    """The address of another registry."""
    (tmp_path / "other").mkdir()
    shutil.copy(empty_store, tmp_path / "other/mlflow.db")
    return f"sqlite:///{tmp_path / 'other/mlflow.db'}"


def promoted(shelf, uri, wanted="candidate"):
    """Do what `kedro models promote --to` does."""
    source, request = ModelVersions(shelf.client, NAME), shelf.request()
    models = open_registry(uri, NAME)
    history = History(models.client, NAME)
    decision = decide(models, history, wanted, request, source)
    if decision.passed:
        promote(models, history, decision, request, copy_version(source, decision.version, models))
    return decision, ModelVersions(models.client, NAME)


def with_files(shelf, number, content):
    version = shelf.client.get_model_version(NAME, number)
    shelf.client.log_text(version.run_id, content, "model/weights/data.bin")


def test_version_arrives_with_files_origin_and_evidence(shelf, target, tmp_path):
    number = shelf.add(0.5, **{names.ENVIRONMENT: "smoke"})
    with_files(shelf, number, "the weights")
    decision, there = promoted(shelf, target)
    assert decision.passed and there.aliases == {"champion": "1"}
    champion, original = there.get("champion"), ModelVersions(shelf.client, NAME).get(number)
    from mlflow.artifacts import download_artifacts

    uri = there.client.get_model_version_download_uri(NAME, "1")
    folder = download_artifacts(artifact_uri=uri, dst_path=str(tmp_path), tracking_uri=target)
    assert (Path(folder) / "weights/data.bin").read_text() == "the weights"
    for tag in (names.DIRTY, names.COMMIT, names.LOCK_MD5, names.RESULTS_SCOPE, names.ENVIRONMENT):
        assert champion.facts[tag] == original.facts[tag]
    assert there.evidence(champion) == ModelVersions(shelf.client, NAME).evidence(original)
    assert champion.tags["copied.from"].endswith("mlflow.db models:/echo/1")
    assert shelf.aliases() == {"candidate": "1"}  # the own registry stays as it was


def test_the_champion_of_the_other_registry_counts(shelf, target):
    for quality, passed in ((0.5, True), (0.4, False), (0.6, True)):
        with_files(shelf, shelf.add(quality), f"weights {quality}")
        decision, there = promoted(shelf, target)
        assert decision.passed == passed
    assert there.aliases == {"champion": "2", "previous": "1"}
    assert [version.number for version in there.all()] == ["2", "1"]  # a refused version is not copied
    assert [entry.to_version for entry in History(there.client, NAME).entries()] == ["1", "2"]


def test_equal_content_is_one_version_there_too(shelf, target):
    with_files(shelf, shelf.add(0.5), "weights")
    promoted(shelf, target)
    source, there = ModelVersions(shelf.client, NAME), open_registry(target, NAME)
    assert copy_version(source, source.get("1"), there) == "1"
    assert [version.number for version in there.all()] == ["1"]
    with pytest.raises(UserError, match="is the champion"):
        promoted(shelf, target)


def test_wrong_addresses_are_one_clear_error(tmp_path):
    with pytest.raises(UserError, match="There is no registry"):
        open_registry(f"sqlite:///{tmp_path / 'nothing.db'}", NAME)
    with pytest.raises(UserError, match="does not answer"):
        open_registry("http://127.0.0.1:9", NAME)
    assert not list(tmp_path.iterdir())
