"""The command that computes a run again, from the options that Kedro reports: it does not depend on who started the run."""

import json
import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from fourfold_ops.tracking.provenance import flat

LISTS = {
    "tags": "tags",
    "nodes": "node_names",
    "from-nodes": "from_nodes",
    "to-nodes": "to_nodes",
    "from-inputs": "from_inputs",
    "to-outputs": "to_outputs",
    "namespaces": "namespaces",
}


def repeating_command(run_params: Mapping[str, Any], project_path: Path, conf_source: str = "") -> tuple[str, list[str]]:
    """Return the shell command that computes the same in a checkout of the commit, without where it ran.

    Args:
        run_params: What Kedro passes to hooks.
        project_path: The folder in which the command is started.
        conf_source: The folder of the configuration; "" or `conf` of the project: the default.

    Returns:
        The command, and the parameters that no option can express (they have commas).
    """
    options: dict[str, str] = {}
    if run_params.get("env") not in (None, "", "local"):
        options["env"] = str(run_params["env"])
    if pipelines := run_params.get("pipeline_names"):
        options["pipelines"] = ",".join(in_order(pipelines))
    options |= {name: ",".join(run_params[key]) for name, key in LISTS.items() if run_params.get(key)}
    if versions := run_params.get("load_versions"):
        options["load-versions"] = ",".join(f"{name}:{version}" for name, version in sorted(versions.items()))
    if source := _conf_source(conf_source, project_path):
        options["conf-source"] = source
    texts = {name: as_option(value) for name, value in sorted(flat(run_params.get("runtime_params") or {}).items())}
    if given := ",".join(f"{name}={text}" for name, text in texts.items() if text is not None):
        options["params"] = given
    flags = ["--only-missing-outputs"] if run_params.get("only_missing_outputs") else []
    command = shlex.join(["kedro", "run", *(f"--{name}={value}" for name, value in options.items()), *flags])
    return command, [name for name, text in texts.items() if text is None]


def in_order(pipelines: Any) -> list[str]:
    """Return names of pipelines in the order in which they are registered: Kedro passes them in any order."""
    if len(set(pipelines)) < 2:
        return list(set(pipelines))  # without loading the pipelines
    from kedro.framework.project import pipelines as registered

    order = {name: number for number, name in enumerate(registered)}
    return sorted(set(pipelines), key=lambda name: (order.get(name, len(order)), name))


def as_option(value: Any) -> str | None:
    """Return a value as `--params=name=` takes it; None if no text gives it, since Kedro splits at every comma."""
    from omegaconf import OmegaConf
    from omegaconf.errors import OmegaConfBaseException
    from yaml import YAMLError

    for text in ([value] if isinstance(value, str) else []) + [json.dumps(value, default=str)]:
        if "," in text or text != text.strip():
            continue
        try:
            read = OmegaConf.to_container(OmegaConf.from_dotlist([f"value={text}"]))
        except (OmegaConfBaseException, YAMLError, ValueError):
            continue
        if isinstance(read, dict) and type(read["value"]) is type(value) and read["value"] == value:
            return text
    return None


def _conf_source(conf_source: str, project_path: Path) -> str:
    if not conf_source or "://" in conf_source:
        return conf_source
    path = (project_path / conf_source).resolve()
    if path == (project_path / "conf").resolve():
        return ""
    return path.relative_to(project_path).as_posix() if path.is_relative_to(project_path) else str(path)
