"""Calls of DVC within this process: a `dvc` command takes seconds to start."""

import logging
import os
from pathlib import Path
from typing import Any

import yaml

from fourfold_ops.atomic import digest_of


def stage_names(project_path: Path) -> list[str]:
    """Return the names of the stages in dvc.yaml, in order."""
    return list(_dvc_yaml(project_path)["stages"])


def digest_of_code(project_path: Path) -> str:
    """Return a digest over the code that stages depend on, and all of conf/ except conf/local."""
    stages = _dvc_yaml(project_path)["stages"].values()
    made = {next(iter(out)) if isinstance(out, dict) else out for stage in stages for out in stage.get("outs", [])}
    roots = [project_path / dep for dep in {dep for stage in stages for dep in stage.get("deps", [])} - made]
    files = [path for root in [*roots, project_path / "conf"] for path in _files(root)]
    return digest_of([path for path in set(files) if "local" not in path.relative_to(project_path).parts], project_path)


def commit_stages(project_path: Path, names: list[str]) -> None:
    """Store the outputs of stages that have just run in the cache of DVC, and write dvc.lock."""
    os.environ.setdefault("DVC_NO_ANALYTICS", "1")
    from dvc.repo import Repo

    logging.getLogger("dvc").setLevel(logging.WARNING)
    with Repo(str(project_path)) as repo:
        for name in names:
            repo.commit(f"{project_path / 'dvc.yaml'}:{name}", force=True)


def status(project_path: Path) -> dict[str, Any]:
    """Return what `dvc status` reports as changed; empty if data, code and parameters are those of dvc.lock."""
    from dvc.repo import Repo

    with Repo(str(project_path)) as repo:
        changed: dict[str, Any] = repo.status()
    return changed


def _dvc_yaml(project_path: Path) -> dict[str, Any]:
    content: dict[str, Any] = yaml.safe_load((project_path / "dvc.yaml").read_text(encoding="utf-8"))
    return content


def _files(root: Path) -> list[Path]:
    if root.is_file():
        return [root]
    return [path for path in root.rglob("*") if path.is_file() and "__pycache__" not in path.parts]
