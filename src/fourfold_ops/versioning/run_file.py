"""`dvc.run.yml`: the environment, the `--params` and the files with which the files under data/ were made."""

import json
import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml
from kedro.config import OmegaConfigLoader

from fourfold_ops.atomic import write_whole
from fourfold_ops.errors import UserError
from fourfold_ops.tracking.provenance import flat

RUN_FILE = "dvc.run.yml"
OWN_NAMES = ("environment", "flags")  # the others are files
HEADER = """\
# The configuration with which data/ was made. `kedro run` writes this file together with dvc.lock, and dvc.yaml reads it:
# so the lock names the environment and the --params of the run, and `dvc repro` repeats exactly that run.
"""


def write_run_file(
    project_path: Path, environment: str, runtime_params: dict[str, Any], files: Mapping[str, str] | None = None
) -> bool:
    """Write the file, unless its content is the same (so that its modification time does not change).

    Args:
        project_path: The folder of dvc.yaml.
        environment: The folder of conf/ that was merged over base.
        runtime_params: Those of the command line.
        files: Dependencies from outside the project by the name that dvc.yaml has for them; see `external.dependencies`.

    Returns:
        Whether the content changed.
    """
    options = flags(environment, runtime_params)
    # The space belongs to the flags: two spaces in a long command become one when DVC writes and reads dvc.lock
    content = {"environment": environment, "flags": f"{options} " if options else "", **(files or {})}
    path = project_path / RUN_FILE
    if _content(path) == content:
        return False
    write_whole(path, (HEADER + "".join(f"{k}: {json.dumps(v)}\n" for k, v in content.items())).encode())
    return True


def recorded_files(project_path: Path) -> dict[str, str]:
    """Return the `files` of `write_run_file` that the file has; none without a file."""
    return {name: str(value) for name, value in _content(project_path / RUN_FILE).items() if name not in OWN_NAMES}


def _content(path: Path) -> dict[str, Any]:
    content = yaml.safe_load(path.read_text(encoding="utf-8")) if path.exists() else None
    return content if isinstance(content, dict) else {}


def flags(environment: str, runtime_params: dict[str, Any]) -> str:
    """Return the options of `kedro run` that give this configuration.

    Raises:
        UserError: A value cannot be written as an option.
    """
    options = [] if environment == "base" else [f"--env={environment}"]
    items = []
    for key, value in sorted(flat(runtime_params).items()):
        text = value if isinstance(value, str) else json.dumps(value)
        if isinstance(value, (list, dict)) or "," in text:
            raise UserError(
                f"--params={key}={text} cannot be recorded in {RUN_FILE}.", "Put it into a folder of conf/ instead."
            )
        items.append(f"{key}={text}")
    if items:
        options.append(f"--params={','.join(items)}")
    return shlex.join(options)


def recorded_parameters(conf_source: str, settings: dict[str, Any], environment: str, runtime_params: dict[str, Any]) -> Any:
    """Return the parameters of conf/base, one environment and `--params`, without conf/local."""
    return OmegaConfigLoader(conf_source, env=environment, runtime_params=runtime_params, **settings)["parameters"]


def differences(ours: Any, theirs: Any) -> list[str]:
    """Return the dotted names of the parameters that differ."""
    left, right = flat(ours), flat(theirs)
    return sorted(key for key in {*left, *right} if key not in left or key not in right or left[key] != right[key])
