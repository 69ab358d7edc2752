"""What only the libraries of a project can tell about a run, found in a second process: the command itself loads none.

That is whether the parameters are valid and sizes fit, and which Jobs a runner would submit.
"""

import json
import subprocess
import sys
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fourfold_ops.errors import UserError, one_line
from fourfold_ops.loading import load_object
from fourfold_ops.planning.plan import Present

SECONDS = 120  # to import the libraries on a busy machine


@dataclass(frozen=True)
class Findings:
    """What the process found: why the run would be refused ("" if it would not be), and one line for each Job."""

    problem: str = ""
    jobs: tuple[str, ...] = ()


def start(
    present: Present,
    stages: Iterable[str],
    jobs: str = "",
    options: Mapping[str, Any] | None = None,
) -> subprocess.Popen[str]:
    """Start the process; it checks while the caller works.

    Args:
        present: The project, with its parameters and its catalog.
        stages: The stages that will run.
        jobs: Dotted path of a function, (options of `kedro run`) → one line for each Job; "": nothing is submitted.
        options: The options for `jobs`.
    """
    request = {"project": str(present.project_path), "stages": sorted(stages), "parameters": present.parameters}
    request |= {"catalog": present.catalog, "jobs": jobs, "options": options or {}}
    text = json.dumps(request, default=str)
    process = subprocess.Popen(  # noqa: S603
        [sys.executable, "-m", __name__],
        cwd=present.project_path,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    assert process.stdin is not None
    process.stdin.write(text)
    process.stdin.close()
    process.stdin = None
    return process


def result_of(process: subprocess.Popen[str]) -> Findings:
    """Return what the process found; one that failed for another reason has found nothing, and the run will tell."""
    try:
        output, _ = process.communicate(timeout=SECONDS)
    except subprocess.TimeoutExpired:
        process.kill()
        return Findings()
    lines = output.splitlines() if process.returncode == 0 else []
    return Findings(lines[-1].removeprefix(" "), tuple(lines[:-1])) if lines else Findings()


def main() -> None:
    """Check the request on stdin with the hooks of the project; print a line for each Job, then the problem."""
    from kedro.framework.startup import bootstrap_project

    request = json.loads(sys.stdin.read())
    bootstrap_project(Path(request["project"]))
    try:
        _check(set(request["stages"]), request["parameters"], request["catalog"])
        for line in load_object(request["jobs"])(request["options"]) if request["jobs"] else ():
            print(line)
        print(" ")
    except (UserError, ValueError) as error:
        print(f" {one_line(error)}")


def _check(stages: set[str], parameters: dict[str, Any], catalog: dict[str, Any]) -> None:
    from kedro.framework.project import settings

    from fourfold_ops.hooks.parameters import ParametersHook
    from fourfold_ops.hooks.preflight import PreflightHook

    for hook in settings.HOOKS:
        if isinstance(hook, ParametersHook):
            hook.check(parameters)
    for hook in settings.HOOKS:
        if isinstance(hook, PreflightHook):
            hook.check(stages, parameters, catalog)


if __name__ == "__main__":
    main()
