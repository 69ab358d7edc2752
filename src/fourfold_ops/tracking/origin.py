"""Where a run comes from: command, code, uncommitted changes, user, machine and packages, known when it starts."""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from fourfold_ops.secrets import redact
from fourfold_ops.tracking import names
from fourfold_ops.tracking.command import in_order, repeating_command
from fourfold_ops.tracking.machine import environment_tags, installed_packages, machine_tags
from fourfold_ops.tracking.patch import Patch, patch_of
from fourfold_ops.tracking.provenance import WRITTEN_BY_RUNS, git_tags, lock_digest

logger = logging.getLogger(__name__)
SHORT = 8  # hex digits of a commit in sentences


@dataclass(frozen=True)
class Origin:
    """Tags and artifacts of a run, and what a reader of its numbers must know about their origin.

    Attributes:
        tags: Of the parent run and of every stage run.
        files: Content by name of artifact, of the parent run.
        warnings: Sentences.
    """

    tags: dict[str, str]
    files: dict[str, bytes] = field(default_factory=dict)
    warnings: list[str] = field(default_factory=list)


def origin_of(project_path: Path, run_params: Mapping[str, Any], conf_source: str, local: Sequence[str] = ()) -> Origin:
    """Return the origin of a run that starts now.

    Args:
        project_path: The project.
        run_params: What Kedro passes to hooks; `runtime_params` also with what conf/local changes.
        conf_source: Folder of the configuration.
        local: Names of the parameters that conf/local changes.
    """
    git, packages = git_tags(project_path), installed_packages()
    command, unspoken = repeating_command(run_params, project_path, conf_source)
    tags = {
        names.COMMAND: command,
        names.ENVIRONMENT: str(run_params.get("env") or "base"),
        names.PIPELINES: ", ".join(in_order(run_params.get("pipeline_names") or ["__default__"])),
        names.LOCK_MD5: lock_digest(project_path),
        **git,
        **machine_tags(),
        **environment_tags(project_path, packages),
    }
    patch = _patch(project_path) if git.get(names.DIRTY) == "true" else Patch()
    files = {names.PACKAGES: packages.encode()}
    if patch.content:
        files[names.PATCH], tags[names.PATCH_SHA256] = patch.content, patch.sha256
    if patch.left_out:
        tags[names.PATCH_LEFT_OUT] = "; ".join(f"{path} ({reason})" for path, reason in patch.left_out.items())
    warnings = [*_warnings_of_code(git, patch), *_warnings_of_command(local, unspoken)]
    return Origin({key: redact(value) for key, value in tags.items()}, files, warnings)


def _patch(project_path: Path) -> Patch:
    if not (project_path / ".git").exists() and not git_tags(project_path):
        return Patch()
    try:
        return patch_of(project_path, WRITTEN_BY_RUNS)
    except (OSError, ValueError) as error:  # in an image there is no repository; a run needs none
        logger.debug("The uncommitted changes could not be recorded.", exc_info=True)
        return Patch(left_out={"all changes": str(error)[:200]})


def _warnings_of_code(git: Mapping[str, str], patch: Patch) -> list[str]:
    if names.COMMIT not in git:
        return ["No git commit is known, so the code cannot be found again."]
    if git.get(names.DIRTY) != "true":
        return []
    where = f"the artifact {names.PATCH} has the changes" if patch.content else "the changes are not recorded"
    lacking = f", without {', '.join(list(patch.left_out)[:5])}" if patch.content and patch.left_out else ""
    return [f"The code was commit {git[names.COMMIT][:SHORT]} with uncommitted changes; {where}{lacking}."]


def _warnings_of_command(local: Sequence[str], unspoken: Sequence[str]) -> list[str]:
    found = []
    if local:
        found.append(f"conf/local changes {', '.join(local)}.")
    if unspoken:
        found.append(f"The command lacks {', '.join(unspoken)}: no option can express the values; see {names.PARAMETERS}.")
    return found
