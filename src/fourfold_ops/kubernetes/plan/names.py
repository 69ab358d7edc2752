"""Names and labels of objects in the cluster.

The same command gives the same names, so a restarted driver finds the objects of its run.
"""

import hashlib
import json
import re
from typing import Any

MANAGED_BY = "app.kubernetes.io/managed-by"
MANAGER = "fourfold-ops"
PROJECT = "kedro.org/project"
RUN = "kedro.org/run"
STEP = "kedro.org/step"
ROLE = "kedro.org/role"  # step, merge or driver
NODES = "kedro.org/nodes"  # annotations from here on: names of the nodes of a step
TITLE = "kedro.org/title"
CONTENT = "kedro.org/content"
PARENT = "kedro.org/mlflow-parent-run"
WRITES = "kedro.org/writes"  # JSON list of the locations that the step writes to
COMMAND = "kedro.org/command"
PARTS = "kedro.org/parts"  # parts of the step that an Indexed Job works on, e.g. "1,3"

MAX_NAME = 52  # of a Job: a pod of an Indexed Job has the host name NAME-INDEX, a DNS label of at most 63 characters


def digest(value: Any, length: int = 10) -> str:
    """Return the first hex digits of the SHA-256 of a JSON value."""
    return hashlib.sha256(json.dumps(value, sort_keys=True, default=str).encode()).hexdigest()[:length]


def run_name(project: str, what: Any, data: Any) -> str:
    """Return the name of a run.

    Args:
        project: Name of the project.
        what: What the run computes, i.e. the options of `kedro run`.
        data: On which data, i.e. the volumes.
    """
    return f"{slug(project, 40)}-{digest([project, what, data], 8)}"


def job_name(run: str, step: str, content: str, suffix: str = "") -> str:
    """Return the name of a step's Job, which depends on run, step and content: other code gives another Job."""
    tail = "-".join(part for part in (digest([run, step, content], 10), suffix) if part)
    return f"{slug(step, MAX_NAME - 1 - len(tail))}-{tail}"


def labels(project: str, run: str, step: str = "", role: str = "step") -> dict[str, str]:
    """Return the labels of the objects of a run."""
    common = {MANAGED_BY: MANAGER, PROJECT: label(project), RUN: run, ROLE: role}
    return {**common, STEP: label(step)} if step else common


def selector(**wanted: str) -> str:
    """Return a label selector for our objects, restricted by any of `project`, `run`, `step` and `role`."""
    keys = {"project": PROJECT, "run": RUN, "step": STEP, "role": ROLE}
    chosen = {keys[name]: label(value) for name, value in wanted.items() if value}
    return ",".join(f"{key}={value}" for key, value in {MANAGED_BY: MANAGER, **chosen}.items())


def slug(text: str, length: int) -> str:
    """Return `text` as a part of an object's name: lower-case letters, digits and dashes, at most `length`."""
    return re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-")[:length].strip("-") or "x"


def label(text: str) -> str:
    """Return `text` as the value of a label, with a digest if it had to be changed, so that values stay distinct."""
    if re.fullmatch(r"[A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?", text):
        return text
    return f"{slug(text, 48)}-{digest(text, 8)}"
