"""Copies of this repository in which tests run whole commands."""

import os
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

from preloaded import Command

ROOT = Path(__file__).parents[2]


def clone(target: Path, keep: Callable[[str], bool] = lambda name: True, files: dict[str, str] | None = None) -> Path:
    """Copy the files that git tracks or would track, in their current state, into a new repository with one commit.

    Args:
        target: The folder of the new repository.
        keep: Says of a path, relative to the root, whether it is copied.
        files: Texts of further files by path.
    """
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard", "-z"], cwd=ROOT, check=True, capture_output=True
    )
    for name in filter(None, listed.stdout.decode().split("\0")):
        if (ROOT / name).is_file() and keep(name):
            (target / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(ROOT / name, target / name)
    for name, text in (files or {}).items():
        (target / name).parent.mkdir(parents=True, exist_ok=True)
        (target / name).write_text(text)
    for command in (["init", "-q"], ["add", "-A"], ["commit", "-qm", "clone"]):
        git(target, *command)
    return target


def git(folder: Path, *arguments: str) -> str:
    """Run git in a folder, with the name of a test as author, and return what it prints."""
    author = ["-c", "user.name=test", "-c", "user.email=test@example.invalid"]
    found = subprocess.run(["git", *author, *arguments], cwd=folder, check=True, capture_output=True, text=True)
    return found.stdout.strip()


def start_run(folder: Path, *options: str) -> Command:
    """Start `kedro run` in a clone, with its own code; the output goes to a file beside the folder."""
    environment = {**os.environ, "PYTHONPATH": f"{folder / 'src'}{os.pathsep}{folder}"}
    log = folder.with_suffix(".log")
    log.unlink(missing_ok=True)
    return Command(["kedro", "run", *options], folder, environment, log)
