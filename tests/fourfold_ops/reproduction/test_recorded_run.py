"""A run is found by its id in MLflow and by a model version, with commit, command, lock and changes."""

import hashlib
import shutil

import pytest

from fourfold_ops.errors import UserError
from fourfold_ops.reproduction.comparison import IDENTICAL, Comparison
from fourfold_ops.reproduction.metrics import MetricResult
from fourfold_ops.reproduction.origin import find_original
from fourfold_ops.reproduction.outputs import OutputResult
from fourfold_ops.reproduction.record import record
from fourfold_ops.reproduction.recorded_run import LATEST, VERDICT, artifact, find_run, open_store
from fourfold_ops.reproduction.workspace import Workspace
from fourfold_ops.tracking import names


@pytest.fixture
def parent(project, monkeypatch):
    monkeypatch.chdir(project.folder)
    (run,) = project.recorded("parent")
    return run


def test_run_has_commit_command_and_lock_and_a_revision_finds_its_run(project, parent):
    run_id = parent.info.run_id
    original = find_original(project.folder, run_id)
    assert original.commit == project.git("rev-parse", "HEAD~") == parent.data.tags[names.COMMIT]
    assert original.command == ("run", "--env=smoke", "--params=seed=7") and original.ran == ()
    assert original.name == f"run-{run_id[:12]}" and original.stages == ("making", "tuning", "judging")
    assert original.lock == find_original(project.folder, "HEAD").lock
    assert find_original(project.folder, "HEAD").run_id == run_id == find_original(project.folder, None, in_place=True).run_id
    assert original.facts["python"] == parent.data.tags["python"]


def test_lock_of_a_run_is_found_in_the_history_of_git(project, parent):
    (project.folder / "dvc.lock").unlink()
    store = open_store(project.folder)
    if artifact(store, parent, names.LOCK) is not None:
        shutil.rmtree(next(project.folder.glob(f"data/mlflow_artifacts/{parent.info.run_id}/artifacts/provenance")))
    assert find_original(project.folder, parent.info.run_id).lock == find_original(project.folder, "HEAD").lock
    store.client.set_tag(parent.info.run_id, names.LOCK_MD5, "0" * 32)
    with pytest.raises(UserError, match="is neither its artifact nor in the history of git"):
        find_original(project.folder, parent.info.run_id)
    store.client.set_tag(parent.info.run_id, names.RECORDED, "false")
    with pytest.raises(UserError, match=r"is not recorded in dvc\.lock"):
        find_original(project.folder, parent.info.run_id)


def test_model_version_leads_to_the_parent_run(project, parent):
    client, stage = open_store(project.folder).client, project.recorded("tuning")[0].info.run_id
    client.create_registered_model("numbers")
    client.create_model_version("numbers", f"file://{project.folder}/data/02_tuned", stage)
    client.set_registered_model_alias("numbers", "champion", "1")
    for reference in ("models:/numbers/1", "models:/numbers@champion", "numbers@champion", stage):
        assert find_original(project.folder, reference).run_id == parent.info.run_id
    for reference in ("models:/numbers/2", "numbers@gone", "0" * 32):
        with pytest.raises(UserError, match="has no run or model version"):
            find_original(project.folder, reference)


def test_recorded_changes_are_applied_and_must_be_those_that_were_recorded(project, parent, tmp_path):
    project.write("conf/base/extra file.yml", "new: 1\n")
    project.git("add", "-A")
    patch = (project.git("diff", "--cached", "--binary") + "\n").encode()
    project.git("reset", "-q", "--hard")
    client, run_id = project.client(), parent.info.run_id
    client.set_tag(run_id, names.DIRTY, "true")
    with pytest.raises(UserError, match="was made with uncommitted changes that were not recorded"):
        find_original(project.folder, run_id)
    (tmp_path / "dirty.patch").write_bytes(patch)
    client.log_artifact(run_id, str(tmp_path / "dirty.patch"), "provenance")
    client.set_tag(run_id, names.PATCH_SHA256, hashlib.sha256(patch).hexdigest())
    original = find_original(project.folder, run_id)
    workspace = Workspace(project.folder, tmp_path / "place", original.commit)
    workspace.create(original.patch)
    assert (workspace.root / "conf/base/extra file.yml").read_text() == "new: 1\n"
    client.set_tag(run_id, names.PATCH_SHA256, hashlib.sha256(b"other").hexdigest())
    with pytest.raises(UserError, match="do not have the SHA-256"):
        find_original(project.folder, run_id)


def test_reproduction_is_recorded_as_a_child_of_the_original(project, parent, tmp_path):
    (tmp_path / "comparison.json").write_text("{}")
    outputs = (OutputResult("making", "data/01_made", "same", "1", "1"),)
    metrics = (MetricResult("parts.size", 1, 1, 0.0, 0.0, True), MetricResult("reference", "a", "a", None, 0.0, True))
    comparison = Comparison("HEAD", "c" * 40, parent.info.run_id, "kedro run", ("making",), outputs, metrics=metrics)
    store = open_store(project.folder)
    record(store, comparison, {}, [], is_whole=False)  # a part proves nothing about the whole run
    assert VERDICT not in store.client.get_run(parent.info.run_id).data.tags
    child = store.client.get_run(
        record(store, comparison, {"python": "3", "a.precision": "fp32"}, [tmp_path / "comparison.json"])
    )
    assert child.info.status == "FINISHED" and child.data.metrics == {"parts/size": 1, "outputs/same": 1}
    assert child.data.tags["mlflow.parentRunId"] == parent.info.run_id and child.data.tags["compute.a.precision"] == "fp32"
    assert artifact(store, child, "reproduction/comparison.json") == b"{}"
    original = store.client.get_run(parent.info.run_id).data.tags
    assert original[VERDICT] == IDENTICAL and original[LATEST] == child.info.run_id
    assert find_run(store, child.info.run_id).info.run_id == parent.info.run_id
    assert find_original(project.folder, "HEAD").run_id == parent.info.run_id


def test_without_a_store_a_revision_works_and_a_run_is_refused(project, parent):
    (project.folder / "data/mlflow.db").unlink()
    assert find_original(project.folder, "HEAD").run_id == ""
    with pytest.raises(UserError, match="no runs are recorded here"):
        find_original(project.folder, parent.info.run_id)
    assert not (project.folder / "data/mlflow.db").exists()
