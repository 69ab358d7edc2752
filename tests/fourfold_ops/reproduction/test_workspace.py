"""The worktree has the code of the commit, wherever the project lies in its repository, and leaves nothing behind."""

import os
import signal
import subprocess
import sys
import threading
import time

import pytest

from fourfold_ops.errors import UserError
from fourfold_ops.reproduction import git as calls
from fourfold_ops.reproduction.workspace import Workspace


@pytest.fixture
def inner(tmp_path, monkeypatch):
    """A project in a subfolder of a repository, with two commits."""
    for name in ("GIT_CONFIG_GLOBAL", "GIT_CONFIG_SYSTEM"):
        monkeypatch.setenv(name, os.devnull)
    top = tmp_path / "a repository"
    project = top / "projects/vision"
    (project / "src").mkdir(parents=True)
    author = ["-c", "user.name=test", "-c", "user.email=test@example.invalid"]
    subprocess.run(["git", "init", "-q"], cwd=top, check=True)
    hook = top / ".git/hooks/post-checkout"
    hook.write_text("#!/bin/sh\ntouch hook-was-here\n")
    hook.chmod(0o755)
    for text in ("old", "new"):
        (project / "src/code.py").write_text(text)
        (top / "shared.txt").write_text(text)
        subprocess.run(["git", "add", "-A"], cwd=top, check=True)
        subprocess.run(["git", *author, "commit", "-qm", text], cwd=top, check=True)
    return project


def test_worktree_of_an_older_commit_in_a_subfolder(inner, tmp_path):
    commit = calls.commit_of(inner, "HEAD~")
    workspace = Workspace(inner, tmp_path / "place", commit)
    workspace.create()
    assert workspace.exists() and (workspace.root / "src/code.py").read_text() == "old"
    assert workspace.root == tmp_path / "place/worktree/projects/vision"
    assert not list(tmp_path.rglob("hook-was-here"))
    assert not Workspace(inner, tmp_path / "place", calls.commit_of(inner, "HEAD")).exists()
    workspace.create()  # again, over the old one
    workspace.remove()
    assert not (tmp_path / "place/worktree").exists()
    assert len(calls.git(inner, "worktree", "list").splitlines()) == 1
    assert not calls.git(inner, "status", "--porcelain")


def test_export_writes_a_commit_and_keeps_the_index(inner, tmp_path):
    (inner / "src/staged.py").write_text("")
    calls.git(inner, "add", "src/staged.py")
    patch = b"--- a/shared.txt\n+++ b/shared.txt\n@@ -1 +1 @@\n-old\n\\ No newline at end of file\n+patched\n"
    code = calls.export(inner, calls.commit_of(inner, "HEAD~"), tmp_path / "code", patch)
    assert (tmp_path / "code/shared.txt").read_text() == "patched\n"
    assert (code / "src/code.py").read_text() == "old" and not (code / "src/staged.py").exists()
    assert calls.git(inner, "status", "--porcelain").split() == [b"A", b"projects/vision/src/staged.py"]


def test_revisions_and_files_that_do_not_exist(inner):
    assert calls.commit_of(inner, "nothing") is None and calls.commit_of(inner, "--all") is None
    commit = calls.commit_of(inner, "HEAD~")
    assert calls.read(inner, commit, "src/code.py") == b"old" and calls.read(inner, commit, "src/none.py") is None
    with pytest.raises(UserError, match=r"`git .* worktree add .*` failed: fatal: "):
        Workspace(inner, inner / "place", "0" * 40).create()


def test_patch_that_does_not_fit_is_refused(inner, tmp_path):
    workspace = Workspace(inner, tmp_path / "place", calls.commit_of(inner, "HEAD"))
    with pytest.raises(UserError, match="`git apply"):
        workspace.create(b"--- a/shared.txt\n+++ b/shared.txt\n@@ -1 +1 @@\n-other\n\\ No newline at end of file\n+x\n")


def test_code_of_the_worktree_comes_first_and_the_run_has_a_separate_store(inner, tmp_path, monkeypatch):
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(inner / "lib"), str(tmp_path)]))
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://server")
    monkeypatch.setenv("DVC_STAGE", "x")
    workspace = Workspace(inner, tmp_path / "place", calls.commit_of(inner, "HEAD"))
    workspace.create()
    (workspace.root / "lib").mkdir()
    variables = workspace.environment()
    expected = [workspace.root / "src", workspace.root, workspace.root / "lib", tmp_path]
    assert variables["PYTHONPATH"].split(os.pathsep) == list(map(str, expected))
    assert variables["MLFLOW_TRACKING_URI"].startswith(f"sqlite:///{workspace.root}") and "DVC_STAGE" not in variables


def test_signal_reaches_the_run_which_may_save_its_progress(inner, tmp_path):
    workspace = Workspace(inner, tmp_path / "place", calls.commit_of(inner, "HEAD"))
    workspace.create()
    script = "import signal, sys, time; signal.signal(15, lambda *_: (time.sleep(0.3), open('saved', 'w'), sys.exit(75)));"
    script += "open('started', 'w'); time.sleep(60)"

    def stop() -> None:
        while not (workspace.root / "started").exists():
            time.sleep(0.02)
        os.kill(os.getpid(), signal.SIGUSR1)

    def exit_now(number, frame):
        raise SystemExit(75)

    before = signal.signal(signal.SIGUSR1, exit_now)
    threading.Thread(target=stop, daemon=True).start()
    try:
        with pytest.raises(SystemExit):
            workspace.run([sys.executable, "-c", script], {})
    finally:
        signal.signal(signal.SIGUSR1, before)
    assert (workspace.root / "saved").exists()
