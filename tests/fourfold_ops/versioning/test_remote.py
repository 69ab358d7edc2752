"""Pushing to a folder, and what the page on operations says about older commits."""

import os

import pytest
from checkout import git
from object_store import KEYS, object_store

from fourfold_ops.errors import UserError
from fourfold_ops.versioning.remote import check_remote, push
from fourfold_ops.versioning.repository import commit_stages

DVC_YAML = "stages: {make: {cmd: 'true', outs: [out: {persist: true}]}}\n"


@pytest.fixture
def project(tmp_path, monkeypatch):
    """A repository with one stage and no remote."""
    for name in ("GIT_CONFIG_GLOBAL", "GIT_CONFIG_SYSTEM"):
        monkeypatch.setenv(name, os.devnull)
    folder = tmp_path / "a project"
    (folder / ".dvc").mkdir(parents=True)
    (folder / "dvc.yaml").write_text(DVC_YAML)
    (folder / ".dvc/config").write_text("[core]\n    analytics = false\n")
    (folder / ".gitignore").write_text("/out\n/.dvc/tmp\n/.dvc/cache\n")
    git(folder, "init", "-q")
    return folder


def run(project, text):
    """Make a result, record it and commit its lock."""
    (project / "out").mkdir(exist_ok=True)
    (project / "out/result.txt").write_text(text)
    commit_stages(project, ["make"])
    git(project, "add", "-A")
    git(project, "commit", "-qm", text)


def add_remote(project):
    folder = project.parent / "remote"
    (project / ".dvc/config").write_text(
        f"[core]\n    analytics = false\n    remote = r\n['remote \"r\"']\n    url = {folder}\n"
    )
    return folder


@pytest.fixture
def store(monkeypatch):
    for name, value in KEYS.items():
        monkeypatch.setenv(name, value)
    with object_store() as store:
        yield store


def contents(remote):
    return {path.read_text() for path in remote.rglob("*") if path.is_file() and path.suffix != ".dir"}


def test_results_are_pushed_once_and_pulled_in_a_clone(project):
    from dvc.repo import Repo

    remote = add_remote(project)
    run(project, "first")
    check_remote(project)
    assert push(project, ["make"]) == 2  # the file and the list of the folder
    assert push(project, ["make"]) == 0 and contents(remote) == {"first"}
    clone = project.parent / "clone"
    git(project.parent, "clone", "-q", str(project), str(clone))
    with Repo(str(clone)) as repo:
        repo.pull()
    assert (clone / "out/result.txt").read_text() == "first"


def test_results_go_to_an_object_store_and_come_back_in_a_clone(project, store):
    from dvc.repo import Repo

    remote = f"['remote \"s\"']\n    url = s3://{store.bucket}/fourfold\n    endpointurl = {store.address}\n"
    (project / ".dvc/config").write_text(f"[core]\n    analytics = false\n    remote = s\n{remote}")
    run(project, "first")
    check_remote(project)
    assert push(project, ["make"]) == 2 and push(project, ["make"]) == 0
    stored = store.names()
    assert len(stored) == 2 and all(name.startswith("fourfold/files/md5/") for name in stored)
    clone = project.parent / "clone"
    git(project.parent, "clone", "-q", str(project), str(clone))
    with Repo(str(clone)) as repo:
        repo.pull()
    assert (clone / "out/result.txt").read_text() == "first"
    for name in stored:
        store.client.delete_object(Bucket=store.bucket, Key=name)
    store.client.delete_bucket(Bucket=store.bucket)
    with pytest.raises(Exception, match="bucket does not exist"):
        push(project, ["make"])


def test_missing_remote_is_found_before_a_run(project):
    with pytest.raises(UserError, match="--push needs a DVC remote, and none is the default") as error:
        check_remote(project)
    assert "dvc remote add --default" in error.value.remedy
    (project / ".dvc/config").write_text("[core]\n    remote = r\n['remote \"r\"']\n    url = s4://bucket\n")
    with pytest.raises(UserError, match="The DVC remote cannot be used: "):
        check_remote(project)


def test_all_commits_skips_commits_that_are_older_than_the_remote(project):
    from dvc.repo import Repo

    run(project, "first")
    first = git(project, "rev-parse", "HEAD")
    run(project, "second")
    remote = add_remote(project)
    git(project, "commit", "-qam", "remote")
    run(project, "third")
    with Repo(str(project)) as repo:
        repo.push(all_commits=True)
    assert contents(remote) == {"second", "third"}  # "second" is that of the commit which added the remote
    git(project, "checkout", "-q", first, "--", "dvc.lock")
    push(project, ["make"])
    assert contents(remote) == {"first", "second", "third"}
