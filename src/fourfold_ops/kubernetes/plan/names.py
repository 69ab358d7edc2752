"""Names and labels: the same command gives the same names, so that a driver that comes back finds what it left. Pure."""

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
NODES = "kedro.org/nodes"  # annotations from here on
TITLE = "kedro.org/title"
CONTENT = "kedro.org/content"
PARENT = "kedro.org/mlflow-parent-run"
WRITES = "kedro.org/writes"  # JSON list: the places that the step writes to
COMMAND = "kedro.org/command"
PARTS = "kedro.org/parts"  # the parts that an Indexed Job works on, e.g. "1,3"

MAX_NAME = 52  # of a Job: an indexed pod's host name adds "-INDEX", and is a label of DNS: 63


def digest(value: Any, length: int = 10) -> str:
    """Return the first hex digits of a SHA-256 over a JSON value."""
    return hashlib.sha256(json.dumps(value, sort_keys=True, default=str).encode()).hexdigest()[:length]


def run_name(project: str, what: Any, data: Any) -> str:
    """Return the name of a run: of a project, `what` it computes (options of `kedro run`) and on which `data` (volumes)."""
    return f"{slug(project, 40)}-{digest([project, what, data], 8)}"


def job_name(run: str, step: str, content: str, suffix: str = "") -> str:
    """Return the name of a step's Job: of the run, the step and the content, so other code gives another Job."""
    tail = "-".join(part for part in (digest([run, step, content], 10), suffix) if part)
    return f"{slug(step, MAX_NAME - 1 - len(tail))}-{tail}"


def labels(project: str, run: str, step: str = "", role: str = "step") -> dict[str, str]:
    """Return the labels of everything that belongs to a run."""
    found = {MANAGED_BY: MANAGER, PROJECT: label(project), RUN: run, ROLE: role}
    return {**found, STEP: label(step)} if step else found


def selector(**wanted: str) -> str:
    """Return a label selector for what we made; `project`, `run`, `step` and `role` narrow it."""
    keys = {"project": PROJECT, "run": RUN, "step": STEP, "role": ROLE}
    chosen = {keys[name]: label(value) for name, value in wanted.items() if value}
    return ",".join(f"{key}={value}" for key, value in {MANAGED_BY: MANAGER, **chosen}.items())


def slug(text: str, length: int) -> str:
    """Return `text` as a part of an object's name: lower-case letters, digits and dashes."""
    return re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-")[:length].strip("-") or "x"


def label(text: str) -> str:
    """Return `text` as a label's value, kept apart from others by a digest where it had to be changed."""
    if re.fullmatch(r"[A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?", text):
        return text
    return f"{slug(text, 48)}-{digest(text, 8)}"
