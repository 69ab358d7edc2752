import os
import shutil
import subprocess

import pytest

from fourfold_ops.tracking import patch
from fourfold_ops.tracking.patch import patch_of


def git(folder, *arguments, **options):
    command = ["git", "-c", "user.name=test", "-c", "user.email=t@example.invalid", *arguments]
    return subprocess.run(command, cwd=folder, check=True, capture_output=True, **options).stdout


def files_of(folder):
    """Return content and mode of every file but git's."""
    found = [path for path in folder.rglob("*") if not path.is_dir() and ".git" not in path.relative_to(folder).parts]
    names = {path: path.relative_to(folder).as_posix() for path in found}
    return {
        names[path]: path.readlink() if path.is_symlink() else (path.read_bytes(), path.stat().st_mode & 0o100)
        for path in found
    }


@pytest.fixture
def repository(tmp_path, monkeypatch):
    for name in ("GIT_CONFIG_GLOBAL", "GIT_CONFIG_SYSTEM"):
        monkeypatch.setenv(name, os.devnull)
    folder = tmp_path / "a repository"
    (folder / "code").mkdir(parents=True)
    git(folder, "init", "-q")
    (folder / ".gitignore").write_text("ignored\n")
    for name, content in {
        "code/a.py": b"a = 1\n",
        "code/gone.py": b"x\n",
        "run.sh": b"true\n",
        "blob": bytes(range(256)),
    }.items():
        (folder / name).write_bytes(content)
    (folder / "written.lock").write_text("by runs\n")
    git(folder, "add", "-A")
    git(folder, "commit", "-qm", "first")
    return folder


def recreated(repository, content):
    """Return the files of a new clone of the commit to which a patch was applied."""
    clone = repository.parent / "clone"
    git(repository.parent, "clone", "-q", str(repository), str(clone))
    git(clone, "apply", "--whitespace=nowarn", "-", input=content)
    found = files_of(clone)
    shutil.rmtree(clone)
    return found


def test_patch_recreates_every_kind_of_change_and_leaves_the_repository_alone(repository):
    (repository / "code/a.py").write_bytes(b"a = 2\r\n\tb = 3 \n")
    (repository / "code/gone.py").unlink()
    (repository / "run.sh").chmod(0o755)
    (repository / "blob").write_bytes(bytes(reversed(range(256))))
    (repository / "staged only").write_text("staged\n")
    git(repository, "add", "staged only")
    (repository / "code/größe [1].py").write_text("new = True")  # no newline at the end
    (repository / "code/link").symlink_to("a.py")
    (repository / "empty").touch()
    before = {path: path.read_bytes() for path in (repository / ".git").rglob("*") if path.is_file()}
    found = patch_of(repository)
    assert {path: path.read_bytes() for path in (repository / ".git").rglob("*") if path.is_file()} == before
    assert found.left_out == {}
    assert recreated(repository, found.content) == files_of(repository)
    assert patch_of(repository).sha256 == found.sha256


def test_configuration_of_the_user_does_not_change_the_patch(repository):
    (repository / "code/a.py").write_text("a = 2\n")
    plain = patch_of(repository)
    for key, value in {
        "diff.noprefix": "true",
        "diff.external": "false",
        "color.ui": "always",
        "diff.renames": "copies",
        "core.quotePath": "true",
    }.items():
        git(repository, "config", key, value)
    assert patch_of(repository) == plain and b"diff --git a/code/a.py b/code/a.py" in plain.content


def test_excluded_and_ignored_files_and_clean_trees_give_no_patch(repository):
    (repository / "ignored").write_text("x")
    (repository / "written.lock").write_text("again\n")
    assert patch_of(repository, ["written.lock"]).content == b""


def test_large_files_secrets_and_repositories_are_named_and_left_out(repository, monkeypatch):
    monkeypatch.setattr(patch, "MAX_FILE_BYTES", 1000)
    monkeypatch.setenv("HF_TOKEN", "hf_planted_1")
    (repository / "large.bin").write_bytes(bytes(1001))
    git(repository, "add", "large.bin")  # although it is staged
    (repository / ".env").write_text("x\n")
    (repository / "notes.txt").write_text("my token is hf_planted_1\n")
    (repository / "code/a.py").write_text("a = 2\n")
    (repository / "inner").mkdir()
    git(repository / "inner", "init", "-q")
    (repository / "inner/file").touch()
    found = patch_of(repository)
    assert found.left_out == {
        ".env": "it contains a secret",
        "inner": "a separate repository",
        "large.bin": "1,001 bytes",
        "notes.txt": "it contains a secret",
    }
    assert b"planted" not in found.content and b"a = 2" in found.content and b"large" not in found.content


def test_only_the_folder_of_the_project_is_looked_at(repository):
    (repository / "run.sh").write_text("false\n")
    (repository / "code/a.py").write_text("a = 2\n")
    assert b"run.sh" not in patch_of(repository / "code").content
    assert b"b/code/a.py" in patch_of(repository / "code").content  # relative to the repository, as `git apply` reads it
