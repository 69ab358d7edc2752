"""The origin of a run: commit, uncommitted changes, data versions, machine and the command that repeats it."""

import hashlib
import json
import os
import platform
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

from fourfold_ops import handover

# Files that runs write do not make the code "dirty".
WRITTEN_BY_RUNS = ("dvc.lock", "dvc.run.yml")


def git_tags(project_path: Path) -> dict[str, str]:
    """Return `git.commit`, `git.branch` and `git.dirty`; in an image, which has no repository, those of the driver."""
    commit = _git(project_path, "rev-parse", "HEAD")
    if not commit:
        handed: dict[str, str] = json.loads(os.environ.get(handover.GIT_TAGS) or "{}")
        return handed
    excluded = [f":(exclude){name}" for name in WRITTEN_BY_RUNS]
    changes = _git(project_path, "status", "--porcelain", "--", ".", *excluded)
    return {
        "mlflow.source.git.commit": commit,
        "git.commit": commit,
        "git.branch": _git(project_path, "rev-parse", "--abbrev-ref", "HEAD"),
        "git.dirty": str(bool(changes)).lower(),
    }


def lock_digest(project_path: Path) -> str:
    """Return the MD5 of `dvc.lock`, or "absent": with the commit it identifies every input and output."""
    lock = project_path / "dvc.lock"
    return hashlib.md5(lock.read_bytes(), usedforsecurity=False).hexdigest() if lock.exists() else "absent"


def command_line(run_params: dict[str, Any]) -> str:
    """Return the shell command that repeats this run, even if a notebook or DVC started it."""
    program = Path(sys.argv[0]).name
    if program == "kedro":
        return shlex.join(["kedro", *sys.argv[1:]])
    options = {
        "pipelines": run_params.get("pipeline_names"),
        "env": run_params.get("env"),
        "tags": run_params.get("tags"),
        "nodes": run_params.get("node_names"),
        "from-nodes": run_params.get("from_nodes"),
        "to-nodes": run_params.get("to_nodes"),
        "params": [f"{k}={v}" for k, v in flat(run_params.get("runtime_params") or {}).items()],
    }
    given = [f"--{k}={v if isinstance(v, str) else ','.join(v)}" for k, v in options.items() if v]
    return shlex.join(["kedro", "run", *given])


def machine_tags() -> dict[str, str]:
    """Return the properties of the machine that results depend on and that need no library of a stage."""
    return {"platform": platform.platform(terse=True), "python": platform.python_version(), "machine": platform.machine()}


def flat(values: Any, prefix: str = "") -> dict[str, Any]:
    """Return nested dictionaries and lists as one dictionary with dotted keys; empty ones stay values."""
    if isinstance(values, dict) and values:
        items = list(values.items())
    elif isinstance(values, list) and values and any(isinstance(v, (dict, list)) for v in values):
        items = list(enumerate(values))
    else:
        return {prefix: values} if prefix else {}
    joined = [flat(v, f"{prefix}.{k}" if prefix else str(k)) for k, v in items]
    return {k: v for part in joined for k, v in part.items()}


def _git(folder: Path, *arguments: str) -> str:
    try:
        done = subprocess.run(["git", *arguments], cwd=folder, capture_output=True, text=True, timeout=30, check=False)  # noqa: S603,S607
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout.strip() if done.returncode == 0 else ""
