"""A past run is really repeated: in another checkout, from empty data, without a trace in the user's project."""

import hashlib
import json
import os
import shutil
import subprocess

import preloaded
import pytest
from dvc.repo import Repo

from fourfold_ops.errors import EXIT_FAILED, UserError, exit_code
from fourfold_ops.reproduction.command import FOLDER
from fourfold_ops.reproduction.comparison import DIFFERS, IDENTICAL, WITHIN
from fourfold_ops.reproduction.origin import find_original
from fourfold_ops.reproduction.recorded_run import open_store
from fourfold_ops.reproduction.reproduce import Request, RunFailedError
from fourfold_ops.reproduction.reproduce import reproduce as repeat
from fourfold_ops.reproduction.text import lines
from fourfold_ops.reproduction.tolerances import rules, tolerance_of
from fourfold_ops.reproduction.verification import verify
from fourfold_ops.tracking import names

WEIGHTS = "data/02_tuned/größe/weights one.bin"


def fork(command, folder, environment):
    """Start a command in a copy of the process that has imported the libraries."""
    done = preloaded.run(command, folder, environment | {"DO_NOT_TRACK": "1"})
    print(done.stdout, done.stderr)
    return done.returncode


def reproduced(project, revision="HEAD", stages=(), start=fork):
    original = find_original(project.folder, revision)
    comparison, workspace = repeat(Request(project.folder, original, stages, project.folder / FOLDER / original.name), start)
    return comparison, "\n".join(lines(comparison)), workspace


def state(folder):
    """Return the SHA-256 of every file of a project, and what git says of it; times of DVC's own tables do not count."""
    left_out = {".git", FOLDER, "tmp", "__pycache__"}
    files = [path for path in folder.rglob("*") if path.is_file() and not left_out & set(path.relative_to(folder).parts)]
    digests = {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}
    git = [subprocess.check_output(["git", *command], cwd=folder) for command in (["status", "--porcelain"], ["branch", "-a"])]
    return digests, git


def test_run_is_repeated_byte_for_byte_and_the_project_stays_as_it_is(project):
    (project.folder / "data/01_made/digests.json").write_text("damaged")  # the data of the user do not matter
    project.write("conf/base/parameters.yml", "not: valid")  # nor do uncommitted changes
    find_original(project.folder, "HEAD")  # adapts the addresses of artifacts to the place of the copy
    before = state(project.folder)
    comparison, text, workspace = reproduced(project)
    assert comparison.verdict == IDENTICAL and comparison.command == "kedro run --env=smoke --params=seed=7"
    assert {metric.difference for metric in comparison.metrics} == {0.0, None} and len(comparison.metrics) == 5
    assert text.splitlines()[-1].startswith("Reproduced: every byte of 3 outputs is as HEAD (")
    assert state(project.folder) == before
    assert (workspace.root / "dvc.lock").read_bytes() == (project.folder / "dvc.lock").read_bytes()
    workspace.remove()
    assert not workspace.root.exists() and len(project.git("worktree", "list").splitlines()) == 1


@pytest.fixture
def copied(finished):
    """Start no run: copy what the run of the finished project made, as a repetition would."""

    def start(command, folder, environment):
        shutil.copytree(finished.folder / "data", folder / "data", dirs_exist_ok=True)
        return 0

    return start


def make_up(project, value):
    """Replace weights and score, with their digests, and record them in DVC and git; return the right score."""
    weights, metrics = project.folder / WEIGHTS, project.folder / "data/03_judged/metrics.json"
    score = json.loads(metrics.read_text())["score"]
    weights.write_text(str(value))
    metrics.write_text(metrics.read_text().replace(f'"score": {score}', f'"score": {value}'))
    for path in (weights, metrics):
        (path.parent / "digests.json").write_text(json.dumps({path.name: hashlib.sha256(path.read_bytes()).hexdigest()}))
    with Repo(str(project.folder)) as repo:
        repo.commit(force=True)
    project.git("commit", "-qam", "made up")
    return score


def test_made_up_result_is_found_with_metrics_and_the_first_node(project, copied):
    score = make_up(project, 1234.5)
    assert verify(project.folder, find_original(project.folder, "HEAD")).verdict == IDENTICAL  # all digests fit
    comparison, text, workspace = reproduced(project, start=copied)
    assert comparison.verdict == DIFFERS and comparison.first_node == "tune_numbers"
    assert [output.status for output in comparison.outputs] == ["same", "different", "different"]
    assert f"{WEIGHTS}: different" in text and "First node that differs: tune_numbers" in text
    row = next(line for line in text.splitlines() if line.startswith("score"))
    assert row.split() == ["score", "1234.5", str(score), f"{score - 1234.5:+.3g}", "0", "too", "large"]
    assert workspace.root.is_dir()  # it stays, to be looked at


@pytest.mark.parametrize(
    ("python", "allowed", "verdict"), [("2.7", 0.02, WITHIN), ("2.7", 0.005, DIFFERS), (None, 0.02, DIFFERS)]
)
def test_other_bytes_hold_on_another_machine_if_metrics_are_close(project, copied, monkeypatch, python, allowed, verdict):
    from fourfold_ops.reproduction import reproduce as module

    monkeypatch.setattr(module, "first_node", lambda *arguments: "")
    score = make_up(project, 1.01 * json.loads((project.folder / "data/03_judged/metrics.json").read_text())["score"])
    (parent,) = project.recorded("parent")
    client = open_store(project.folder).client
    lock = (project.folder / "dvc.lock").read_bytes()
    client.set_tag(parent.info.run_id, names.LOCK_MD5, hashlib.md5(lock).hexdigest())
    if python:
        client.set_tag(parent.info.run_id, "python", python)
    original = find_original(project.folder, "HEAD")
    place = project.folder / FOLDER / original.name
    tolerance = tolerance_of(rules({"tolerances": [{"metrics": "score", "relative": allowed}]}))
    comparison, _ = repeat(Request(project.folder, original, (), place, tolerance=tolerance), copied)
    assert comparison.verdict == verdict and comparison.other_machine == bool(python)
    metric = next(metric for metric in comparison.metrics if metric.name == "score")
    assert metric.found == score and metric.tolerance == (pytest.approx(1.01 * score * allowed) if python else 0.0)


def test_one_stage_is_repeated_in_a_fresh_clone_with_only_the_remote(project, tmp_path):
    project.write(".dvc/config", f"[core]\n    remote = store\n['remote \"store\"']\n    url = {tmp_path / 'store'}\n")
    with Repo(str(project.folder)) as repo:
        repo.push()
    project.git("commit", "-qam", "remote")
    clone = type(project)(tmp_path / "clone", project.package)
    subprocess.run(["git", "clone", "-q", str(project.folder), str(clone.folder)], check=True)
    comparison, _, workspace = reproduced(clone, stages=("judging",))
    assert comparison.verdict == IDENTICAL and [output.path for output in comparison.outputs] == ["data/03_judged"]
    assert comparison.command == "kedro run --env=smoke --params=seed=7 --pipelines=judging"
    assert sorted(path.name for path in (workspace.root / "data").glob("0*")) == ["02_tuned", "03_judged"]
    assert not (clone.folder / ".dvc/cache").exists()
    shutil.rmtree(tmp_path / "store")
    with pytest.raises(UserError, match=r"data/02_tuned .* is missing in the cache of DVC and its remote"):
        reproduced(clone, stages=("judging",))


def test_interrupted_reproduction_continues_and_a_finished_one_starts_again(project, copied):
    starts = []

    def fails(command, folder, environment):
        starts.append(folder)
        (folder / "left").touch()
        return 75

    with pytest.raises(RunFailedError, match="ended with exit code 75") as error:
        reproduced(project, start=fails)
    assert exit_code(error.value) == EXIT_FAILED
    environment = {}

    def succeeds(command, folder, variables):
        environment.update(variables)
        assert (folder / "left").exists()
        return copied(command, folder, variables)

    comparison, _, workspace = reproduced(project, start=succeeds)
    assert comparison.verdict == IDENTICAL
    assert environment["PYTHONPATH"].split(os.pathsep)[0] == str(workspace.root)
    assert environment["MLFLOW_TRACKING_URI"] == f"sqlite:///{workspace.root}/data/mlflow.db"

    # It ended, so its data prove nothing any more

    def is_empty(command, folder, variables):
        assert not (folder / "left").exists() and not list((folder / "data").glob("0*"))
        (folder / "left").touch()
        return 1

    for stages in ((), ("making",), ()):  # data that were restored for other stages are not continued
        with pytest.raises(RunFailedError):
            reproduced(project, stages=stages, start=is_empty)


def test_revision_without_a_lock_is_refused(project):
    with pytest.raises(UserError, match=r"HEAD~ .* has no dvc.lock, so no result is recorded there\."):
        find_original(project.folder, "HEAD~")


def test_inputs_that_dvc_versions_are_restored_from_the_remote(project, tmp_path, monkeypatch):
    monkeypatch.setenv("MINIATURE_SOURCE", "inputs")
    monkeypatch.chdir(project.folder)
    project.write("inputs/a folder/photo.txt", "a photo")
    project.write(".dvc/config", f"[core]\n    remote = store\n['remote \"store\"']\n    url = {tmp_path / 'store'}\n")
    with Repo(str(project.folder)) as repo:
        repo.add("inputs")
    done = project.command("kedro", "run", "--env=smoke", "--pipelines=making")
    assert done.returncode == 0, done.stderr
    with Repo(str(project.folder)) as repo:
        repo.push()
    project.git("add", "-A")
    project.git("commit", "-qam", "inputs")
    clone = type(project)(tmp_path / "clone", project.package)
    subprocess.run(["git", "clone", "-q", str(project.folder), str(clone.folder)], check=True)
    comparison, _, workspace = reproduced(clone, stages=("making",))
    assert {entry.path: entry.status for entry in comparison.inputs} == {project.package: "same", "inputs": "same"}
    assert comparison.verdict == IDENTICAL and (workspace.root / "inputs/a folder/photo.txt").read_text() == "a photo"


@pytest.mark.slow
def test_command_repeats_a_run_of_mlflow_and_records_a_child(project):
    (parent,) = project.recorded("parent")
    done = project.command("kedro", "reproduce", parent.info.run_id)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "Reproduced: every byte of 3 outputs is as MLflow run" in done.stdout
    (child,) = [run for run in project.recorded("parent") if run.data.tags.get("reproduction.of") == parent.info.run_id]
    assert child.data.tags["reproduction.verdict"] == IDENTICAL and child.data.metrics["outputs/same"] == 3
    folder = project.folder / FOLDER / f"run-{parent.info.run_id[:12]}"
    assert sorted(path.name for path in folder.iterdir()) == [".gitignore", ".run.lock", "comparison.html", "comparison.json"]
    assert not project.git("status", "--porcelain")
