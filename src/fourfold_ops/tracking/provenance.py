"""The origin of a run: commit, branch, data versions and the command as it was given."""

import hashlib
import json
import logging
import os
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

from fourfold_ops import handover
from fourfold_ops.secrets import redact
from fourfold_ops.tracking import names

logger = logging.getLogger(__name__)

# Files that runs write do not make the code "dirty".
WRITTEN_BY_RUNS = ("dvc.lock", "dvc.run.yml")


def git_tags(project_path: Path) -> dict[str, str]:
    """Return commit, branch, source, and whether files differ; in an image, which has no .git, those of the driver."""
    commit = _git(project_path, "rev-parse", "HEAD")
    if not commit:
        handed: dict[str, str] = json.loads(os.environ.get(handover.GIT_TAGS) or "{}")
        return handed
    excluded = [f":(exclude){name}" for name in WRITTEN_BY_RUNS]
    changes = _git(project_path, "status", "--porcelain", "--", ".", *excluded)
    branch = _git(project_path, "rev-parse", "--abbrev-ref", "HEAD")
    remote = redact(_git(project_path, "config", "--default=", "--get", "remote.origin.url"))  # may contain a password
    return {
        "mlflow.source.type": "PROJECT",  # with the next tags, MLflow shows the source and links it
        "mlflow.source.name": remote or project_path.resolve().name,
        "mlflow.source.git.commit": commit,
        "mlflow.source.git.branch": branch,
        **({"mlflow.source.git.repoURL": remote} if remote else {}),
        names.COMMIT: commit,
        names.BRANCH: branch,
        names.DIRTY: str(bool(changes)).lower(),
    }


def lock_digest(project_path: Path) -> str:
    """Return the MD5 of `dvc.lock`, or "absent": with the commit it identifies every input and output."""
    lock = project_path / "dvc.lock"
    return digest_of_lock(lock.read_bytes()) if lock.exists() else "absent"


def digest_of_lock(content: bytes) -> str:
    """Return the MD5 of the content of a lock."""
    return hashlib.md5(content, usedforsecurity=False).hexdigest()


def command_line(run_params: dict[str, Any]) -> str:
    """Return the shell command of this run as the user gave it, for messages; `command.repeating_command` is the exact one."""
    program = Path(sys.argv[0]).name
    if program == "kedro":
        return redact(shlex.join(["kedro", *sys.argv[1:]]))
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
    return redact(shlex.join(["kedro", "run", *given]))


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
    if done.returncode and (folder / ".git").exists():
        logger.warning("git cannot read this repository, so the run has no commit: %s", _git_problem(folder, done.stderr))
    return done.stdout.strip() if done.returncode == 0 else ""


def _git_problem(folder: Path, message: str) -> str:
    """Return the first line of an error of git, with the remedy if the repository belongs to another user."""
    line = next(iter(message.strip().splitlines()), "no message")
    if "dubious ownership" not in message:
        return line
    command = shlex.join(["git", "config", "--global", "--add", "safe.directory", str(folder.resolve())])
    return f"{line}. If you trust it: {command}"
