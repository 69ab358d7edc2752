"""The record of a run: enough to find, compare and repeat it, and nothing that is secret."""

import hashlib
import json
import os
import shlex
import shutil
import subprocess

import pytest
from checkout import git
from records import results_of

from fourfold_ops.errors import EXIT_NOT_RECORDED, UserError
from fourfold_ops.tracking import names
from fourfold_ops.tracking.lineage import describe_version

MODEL = """
import json


class Model:
    @classmethod
    def load(cls, folder):
        return cls()

    def predict(self, conditions):
        return {}
"""
CATALOG = """
made_folder: {type: fourfold_ops.datasets.WorkspaceDataset, path: data/01_made}
made: {type: fourfold_ops.datasets.FolderDataset, path: data/01_made}
tuned:
  type: fourfold_ops.datasets.JsonDataset
  filepath: data/02_tuned/tuned.json
  metadata: {record: metrics}
report:
  type: fourfold_ops.datasets.TextDataset
  filepath: data/03_judged/report.html
  metadata: {record: artifact}
metric_log: {type: fourfold_ops.datasets.MetricLogDataset}
registered: {type: fourfold_ops.registry.registered_model.RegisteredModelDataset, name: mini, loader: PACKAGE.model.Model,
  inputs: {text: str}}
"""
DVC_YAML = """
vars: [dvc.run.yml]
stages:
  making:
    cmd: kedro run ${flags}--pipelines=making
    params: [conf/base/parameters.yml: [seed, making]]
    deps: [CODE]
    outs: [data/01_made: {persist: true}]
  tuning:
    cmd: kedro run ${flags}--pipelines=tuning
    params: [conf/base/parameters.yml: [seed, tuning]]
    deps: [CODE, data/01_made]
    outs: [data/02_tuned: {persist: true}]
  judging:
    cmd: kedro run ${flags}--pipelines=judging
    params: [conf/base/parameters.yml: [seed, judging]]
    deps: [CODE, data/02_tuned]
    outs: [data/03_judged: {persist: true}]
"""


def edit(project, path, old, new):
    content = (project.folder / path).read_text()
    assert old in content
    project.write(path, content.replace(old, new))


@pytest.fixture
def committed(miniature, monkeypatch):
    """The miniature with a registered model, under git and DVC, committed."""
    for name in ("GIT_CONFIG_GLOBAL", "GIT_CONFIG_SYSTEM"):
        monkeypatch.setenv(name, os.devnull)
    monkeypatch.setenv("DVC_NO_ANALYTICS", "1")
    package = miniature.package
    miniature.write(f"{package}/model.py", MODEL)
    miniature.write("conf/base/catalog.yml", CATALOG.replace("PACKAGE", package))
    edit(miniature, f"{package}/pipeline_registry.py", 'return {"sum": sum(numbers) * tuning["rate"]}', 'return {"sum": {"a->b": sum(numbers) * tuning["rate"]}, **({"left_out": ["Nothing was measured twice."]} if seed_is_odd(numbers) else {})}')  # fmt: skip  # noqa: E501
    edit(miniature, f"{package}/pipeline_registry.py", "def judge(", "def seed_is_odd(numbers):\n    return bool(numbers[0] % 2)\n\n\ndef publish(folder, report):\n    return folder\n\n\ndef judge(")  # fmt: skip  # noqa: E501
    edit(miniature, f"{package}/pipeline_registry.py", '"report", name="judge_numbers")', '"report", name="judge_numbers"), node(publish, ["made", "report"], "registered", name="publish_model")')  # fmt: skip  # noqa: E501
    miniature.write(".gitignore", "/data/*\n__pycache__\n/conf/local/*\n")
    miniature.write(".dvcignore", "__pycache__\n")
    miniature.write(".dvc/config", "[core]\n    analytics = false\n")
    miniature.write(".dvc/.gitignore", "/tmp\n/cache\n/config.local\n")
    miniature.write("dvc.run.yml", f'environment: base\nflags: ""\nsource: {package}/cli.py\n')
    miniature.write("dvc.yaml", DVC_YAML.replace("CODE", package))
    miniature.write("requirements.lock", "numpy==1\n")
    git(miniature.folder, "init", "-q")
    git(miniature.folder, "add", "-A")
    git(miniature.folder, "commit", "-qm", "first")
    git(miniature.folder, "remote", "add", "origin", "https://ann:planted-pass@example.invalid/x.git")
    return miniature


def record(project):
    """Return the newest parent run, the run of the last stage, and the content of the parent's artifacts by name."""
    parent = project.recorded("parent")[-1]
    folder = project.folder / "data/mlflow_artifacts" / parent.info.run_id / "artifacts"
    files = {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    return parent, next(reversed(project.recorded("judging")), None), files


def test_record_of_a_clean_whole_run(committed):
    committed.run(runtime_params={"seed": 2})
    parent, judging, files = record(committed)
    lock = (committed.folder / "dvc.lock").read_bytes()
    wanted = {
        names.COMMAND: "kedro run --params=seed=2",
        names.COMMIT: git(committed.folder, "rev-parse", "HEAD"),
        names.DIRTY: "false",
        names.LOCK_MD5: hashlib.md5(lock).hexdigest(),
        names.RECORDED: "true",
        names.STAGES: "making, tuning, judging",
        names.SCOPE: names.WHOLE,
        names.RESULTS_SCOPE: names.WHOLE,
        names.REQUIREMENTS_SHA256: hashlib.sha256(b"numpy==1\n").hexdigest(),
        names.PACKAGES_SHA256: hashlib.sha256(files[names.PACKAGES]).hexdigest(),
        "mlflow.source.git.repoURL": "https://***@example.invalid/x.git",
    }
    client = committed.client()
    version = client.get_model_version("mini", "1")
    for tags in (parent.data.tags, judging.data.tags, version.tags):
        assert {key: tags.get(key) for key in wanted} == wanted
        assert tags[names.USER] and tags["machine.host"] and names.WARNINGS not in tags
    assert files[names.LOCK] == lock and files["results/report.html"].startswith(b"<html>")
    assert set(files) == {
        names.PACKAGES,
        names.LOCK,
        names.RUN_FILE,
        names.PARAMETERS,
        "results/report.html",
        "results/tuned.json",
    }
    assert any(line.startswith(b"mlflow==") for line in files[names.PACKAGES].splitlines())
    assert version.tags[names.MODEL_PARENT_RUN] == parent.info.run_id
    assert version.tags[names.MODEL_RUN] == judging.info.run_id
    # every number under the same name and step in stage, parent and model
    assert results_of(committed.recorded("tuning")[-1]) == {"sum/a_to_b": 4.5, "loss": 2.0}
    assert results_of(parent) == results_of(judging) == {"sum/a_to_b": 4.5}
    model = client.get_logged_model(version.source.removeprefix("models:/"))
    assert {metric.key: (metric.value, metric.step) for metric in model.metrics} == {"sum/a_to_b": (4.5, 0)}
    # a dirty run with the same model does not take the place of the clean one
    dirty = {**judging.data.tags, names.DIRTY: "true", names.WARNINGS: "Dirty.", names.MODEL_RUN: "x"}
    describe_version(client, judging.info.run_id, parent.info.run_id, dirty)
    assert client.get_model_version("mini", "1").tags == version.tags


def test_clean_run_takes_the_place_of_a_dirty_one_with_the_same_model(committed):
    committed.write("note.txt", "dirty")
    committed.run()
    parent, judging, _ = record(committed)
    client = committed.client()
    version = client.get_model_version("mini", "1")
    assert (
        version.tags[names.DIRTY] == "true" and version.description == f"Recorded with the run: {version.tags[names.WARNINGS]}"
    )
    kept = {key: value for key, value in judging.data.tags.items() if key not in (names.PATCH_SHA256, names.WARNINGS)}
    describe_version(client, judging.info.run_id, parent.info.run_id, {**kept, names.DIRTY: "false"})
    version = client.get_model_version("mini", "1")
    assert version.tags[names.DIRTY] == "false" and not {names.PATCH_SHA256, names.WARNINGS} & set(version.tags)
    assert not version.description


def test_recorded_command_patch_and_commit_give_the_same_files_elsewhere(committed, tmp_path):
    """Repeat a run of a dirty tree from its record alone."""
    edit(committed, "conf/base/parameters.yml", "rate: 0.5", "rate: 0.75")
    committed.write(f"{committed.package}/new module.py", "x = 1\n")
    committed.write("conf/local/parameters.yml", "making: {note: 'a b'}\n")
    with pytest.raises(UserError, match=r"conf/local changes making\.note"):  # of dvc.lock; MLflow has the run
        committed.run(runtime_params={"seed": 3, "tuning": {"rate": 2.0}}, pipeline_names=["tuning", "making"])
    parent, _, files = record(committed)
    tags = parent.data.tags
    assert tags[names.DIRTY] == "true" and tags[names.PATCH_SHA256] == hashlib.sha256(files[names.PATCH]).hexdigest()
    assert "with uncommitted changes; the artifact provenance/dirty.patch has the changes." in tags[names.WARNINGS]

    elsewhere = tmp_path / "elsewhere"
    git(tmp_path, "clone", "-q", str(committed.folder), str(elsewhere))
    git(elsewhere, "checkout", "-q", tags[names.COMMIT])
    subprocess.run(["git", "apply"], cwd=elsewhere, input=files[names.PATCH], check=True)
    (elsewhere / "conf/local").mkdir()
    (elsewhere / "data").mkdir()
    shutil.copy(committed.folder / "data/mlflow.db", elsewhere / "data/mlflow.db")
    again = type(committed)(elsewhere, committed.package).command(*shlex.split(tags[names.COMMAND]))
    assert again.returncode == 0, again.stderr
    results = [p.relative_to(committed.folder) for p in committed.folder.glob("data/0*/**/*") if p.is_file()]
    assert len(results) >= 2
    for path in results:
        assert (elsewhere / path).read_bytes() == (committed.folder / path).read_bytes()


def test_partial_outdated_and_incomplete_results_say_so_wherever_numbers_are(committed, capfd):
    committed.run()
    committed.write(f"{committed.package}/model.py", MODEL + "# changed\n")
    edit(committed, "conf/base/parameters.yml", "seed: 0", "seed: 1")
    git(committed.folder, "commit", "-qam", "second")
    (committed.folder / "data/01_made/numbers.json").write_text("[1, 2, 3]")
    committed.run(pipeline_names=["tuning", "judging"])
    parent, judging, _ = record(committed)
    version = committed.client().get_model_version("mini", "2")
    for tags in (parent.data.tags, judging.data.tags, version.tags):
        assert tags[names.SCOPE] == tags[names.RESULTS_SCOPE] == names.PARTIAL and tags[names.OUTDATED] == "making"
        assert tags[names.RESULTS_LEFT_OUT] == "Nothing was measured twice."
        assert "Only tuning and judging ran" in tags[names.WARNINGS] and "results of making belong to" in tags[names.WARNINGS]
    assert version.description == f"Recorded with the run: {parent.data.tags[names.WARNINGS]}"
    assert "The results of making belong to other code, parameters or data than this run." in capfd.readouterr().err


def test_no_secret_is_in_the_record(committed):
    """Plant secrets in the environment, credentials, DVC's configuration, parameters, the working tree and an error."""
    committed.write("conf/local/credentials.yml", "bucket: {key: planted-file}\n")
    committed.write("conf/local/parameters.yml", "tuning: {hub_token: planted-parameter}\n")
    committed.write(".dvc/config.local", "['remote \"r\"']\n    url = s3://b\n    secret_access_key = planted-dvc\n")
    committed.write("scratch.txt", "planted-environment planted-file")
    committed.write(".env", "planted-dotenv")
    edit(committed, f"{committed.package}/parameters.py", "    fail: bool", "    hub_token: str = ''\n    fail: bool")
    registry = f"{committed.package}/pipeline_registry.py"
    edit(committed, registry, '"The rate is too high.', 'f"Refused {os.environ["HUB_TOKEN"]} {os.environ["HUB"]} {tuning}.'.replace('"HUB_TOKEN"', "'HUB_TOKEN'").replace('"HUB"', "'HUB'"))  # fmt: skip  # noqa: E501
    planted = {"HUB_TOKEN": "planted-environment", "HUB": "http://ann:planted-address@hub/"}
    failed = committed.command("kedro", "run", "--params=tuning.fail=true", **planted)
    assert failed.returncode == 1 and "Refused *** http://***@hub/ {" in failed.stderr
    done = committed.command("kedro", "run", **planted)
    assert done.returncode == EXIT_NOT_RECORDED, done.stderr  # conf/local changes a parameter
    parent, _, files = record(committed)
    assert json.loads(parent.data.params["tuning.hub_token"]) == "***" and b"hub_token: str" in files[names.PATCH]
    assert parent.data.tags[names.COMMAND] == "kedro run --params=tuning.hub_token=***"
    for path in [path for path in (committed.folder / "data").rglob("*") if path.is_file()]:
        assert b"planted" not in path.read_bytes(), path
    assert "planted" not in "".join(run.stdout + run.stderr for run in (failed, done))
