"""Which node made a file: asked of the reproduced code itself, in a separate process."""

import json
import logging
import subprocess
import sys
from collections.abc import Iterable

from fourfold_ops.reproduction.workspace import Workspace

logger = logging.getLogger(__name__)
SECONDS = 300
# Only the interface of Kedro is used, so that any revision of any project can be asked.
SCRIPT = """
import json, sys
from pathlib import Path
from kedro.framework.project import pipelines, settings
from kedro.framework.startup import bootstrap_project
project = Path.cwd()
bootstrap_project(project)
source = str(project / settings.CONF_SOURCE)
loader = settings.CONFIG_LOADER_CLASS(source, env=sys.argv[1] or None, **settings.CONFIG_LOADER_ARGS)
catalog = {name: entry for name, entry in loader["catalog"].items() if isinstance(entry, dict)}
paths = {name: entry.get("filepath") or entry.get("path") for name, entry in catalog.items()}
nodes = [
    {"name": node.name, "outputs": [paths.get(n) for n in node.outputs], "inputs": [paths.get(n) for n in node.inputs]}
    for node in pipelines["__default__"].nodes
]
print("NODES " + json.dumps(nodes))
"""


def first_node(workspace: Workspace, environment: str, files: Iterable[str]) -> str:
    """Return the first node, in the order of the pipeline, that made one of these files; "" if none can be named.

    A file belongs to the node whose output is its nearest folder; a folder that no node returns, to the first node that has it
    as an input, where it works.

    Args:
        workspace: The checkout of the code.
        environment: The folder of conf/ of the run.
        files: Paths relative to the project.
    """
    nodes = _nodes(workspace, environment)
    order = {node["name"]: position for position, node in enumerate(nodes)}
    owners: dict[str, str] = {}
    for key in ("inputs", "outputs"):  # outputs count more
        for node in reversed(nodes):  # of several, the first
            owners |= {path: node["name"] for path in node[key] if path}
    made = {owner for file in files if (owner := _owner(file, owners))}
    return min(made, key=lambda name: order[name], default="")


def _owner(file: str, owners: dict[str, str]) -> str:
    candidates = [path for path in owners if file == path or file.startswith(f"{path}/")]
    return owners[max(candidates, key=len)] if candidates else ""


def _nodes(workspace: Workspace, environment: str) -> list[dict]:
    command = [sys.executable, "-c", SCRIPT, environment]
    try:
        done = subprocess.run(  # noqa: S603
            command,
            cwd=workspace.root,
            env=workspace.environment(),
            capture_output=True,
            text=True,
            timeout=SECONDS,
            check=True,
        )
    except (OSError, subprocess.SubprocessError) as error:
        logger.debug("The nodes of the reproduced code could not be listed: %s", error)
        return []
    line = next((line for line in done.stdout.splitlines() if line.startswith("NODES ")), "NODES []")
    nodes: list[dict] = json.loads(line.removeprefix("NODES "))
    return nodes
