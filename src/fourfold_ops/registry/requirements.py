"""What the gate requires of the run that a version comes from: clean tree, committed lock, whole evaluation, checked data."""

import hashlib
import subprocess
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fourfold_ops.registry.evidence import Evidence
from fourfold_ops.registry.gate import Finding, Requirement
from fourfold_ops.registry.versions import DIGEST_TAG, Version
from fourfold_ops.tracking import names

LOCK_FILE = "dvc.lock"
REPRODUCTION = "reproduction.verdict"  # tag of a run that was reproduced
REPRODUCED = ("identical", "within tolerance")
CONTEXT_TAG = "mlflow.data.context"  # of a data set of a run: "input" or "output"


@dataclass(frozen=True)
class Origin:
    """What requirements are checked with."""

    project: Path
    client: Any  # of MLflow
    version: Version
    evidence: Evidence | None
    suites: Mapping[str, tuple[str, ...]]  # data set → suites of expectations that its catalog entry has


def check_requirements(required: tuple[Requirement, ...], origin: Origin) -> list[Finding]:
    """Return a finding for each requirement of the gate."""
    return [CHECKS[name](origin) for name in required]


def _clean_tree(origin: Origin) -> Finding:
    dirty, commit = origin.version.facts.get(names.DIRTY), origin.version.facts.get(names.COMMIT, "unknown")
    found = {"false": f"clean at {commit[:10]}", "true": f"changes beside {commit[:10]}"}.get(dirty or "", "not recorded")
    return Finding("clean_tree", "run from a commit without changes", found, dirty == "false")


def _committed_lock(origin: Origin) -> Finding:
    facts, wanted = origin.version.facts, f"the run's {LOCK_FILE} is in git and names its outputs"
    md5 = facts.get(names.LOCK_MD5, "absent")
    if md5 == "absent":
        return Finding("committed_lock", wanted, "the run has no lock", False)
    if facts.get(names.RECORDED) == "false" or facts.get(names.OUTDATED):
        stages = facts.get(names.OUTDATED) or "its own stages"
        return Finding("committed_lock", wanted, f"the lock does not describe {stages}", False)
    commit = commit_with_lock(origin.project, md5)
    found = f"in {commit[:10]}" if commit else f"lock {md5[:8]} is in no commit: git add {LOCK_FILE} dvc.run.yml; git commit"
    return Finding("committed_lock", wanted, found, bool(commit))


def _whole_evaluation(origin: Origin) -> Finding:
    scope = origin.version.facts.get(names.RESULTS_SCOPE, "not recorded")
    left_out = origin.version.facts.get(names.RESULTS_LEFT_OUT, "")
    return Finding("whole_evaluation", "metrics of all parts", f"{scope} {left_out}".strip(), scope == names.WHOLE)


def _this_model(origin: Origin) -> Finding:
    wanted = "metrics are about the files of this version"
    if origin.evidence is None:
        return Finding("this_model", wanted, "the version has no evidence", False)
    ours, theirs = origin.version.tags.get(DIGEST_TAG, ""), origin.evidence.digest
    return Finding("this_model", wanted, f"{theirs[:10]}, version: {ours[:10]}", bool(ours) and ours == theirs)


def _data_checks(origin: Origin) -> Finding:
    suites = {suite for of_data in origin.suites.values() for suite in of_data}
    wanted = f"suites passed on this data: {', '.join(sorted(suites)) or 'none'}"
    results = check_results(origin.client, origin.version.run_id, origin.suites) if origin.version.run_id else {}
    missing = sorted(suites - set(results))
    if missing:
        return Finding("data_checks", wanted, f"no result for {', '.join(missing)}", False)
    warned = sorted(suite for suite, failed in results.items() if failed)
    return Finding("data_checks", wanted, f"passed; warnings in {', '.join(warned)}" if warned else "passed", True)


def _reproduced(origin: Origin) -> Finding:
    verdict = origin.version.facts.get(REPRODUCTION, "")
    found = verdict or "not reproduced: kedro reproduce, with the run of this version"
    return Finding("reproduced", "the run was reproduced", found, verdict in REPRODUCED)


CHECKS: dict[Requirement, Callable[[Origin], Finding]] = {
    "clean_tree": _clean_tree,
    "committed_lock": _committed_lock,
    "whole_evaluation": _whole_evaluation,
    "this_model": _this_model,
    "data_checks": _data_checks,
    "reproduced": _reproduced,
}


def commit_with_lock(project: Path, md5: str) -> str:
    """Return the newest commit of any branch whose dvc.lock has this MD5; "" if there is none."""
    for commit in git_output(project, "rev-list", "--all", "--", LOCK_FILE).decode().split():
        content = git_output(project, "show", f"{commit}:./{LOCK_FILE}")
        if content and hashlib.md5(content, usedforsecurity=False).hexdigest() == md5:
            return commit
    return ""


def git_output(folder: Path, *arguments: str) -> bytes:
    """Return what a git command prints; empty if it fails."""
    try:
        done = subprocess.run(["git", *arguments], cwd=folder, capture_output=True, timeout=60, check=False)  # noqa: S603,S607
    except (OSError, subprocess.TimeoutExpired):
        return b""
    return done.stdout if done.returncode == 0 else b""


def check_results(client: Any, run_id: str, suites: Mapping[str, tuple[str, ...]]) -> dict[str, int]:
    """Return the number of failed expectations of each suite that was run on data which a run depends on, by content.

    From the inputs of the run, it goes to the finished runs that wrote data of the same digest, and to their inputs. A critical
    failure ends a run, so what is left are warnings.

    Args:
        client: of MLflow.
        run_id: of the last run.
        suites: the suites of each data set that has some.
    """
    found: dict[str, int] = {}
    waiting, seen = [client.get_run(run_id)], set()
    while waiting:
        run = waiting.pop()
        for data in _data_of(run, "input"):
            if data in seen:
                continue
            seen.add(data)
            writers = _writers(client, run.info.experiment_id, data)
            waiting += writers[:1]
            for suite in suites.get(data[0], ()):
                checks = [writer.data.metrics.get(f"quality/{suite}/failed") for writer in writers]
                if known := [int(failed) for failed in checks if failed is not None]:
                    found[suite] = known[0]
    return found


def _data_of(run: Any, context: str) -> set[tuple[str, str]]:
    """Return name and digest of the data sets that a run read ("input") or wrote ("output")."""
    entries = run.inputs.dataset_inputs if run.inputs else []
    return {
        (entry.dataset.name, entry.dataset.digest)
        for entry in entries
        if any(tag.key == CONTEXT_TAG and tag.value == context for tag in entry.tags)
    }


def _writers(client: Any, experiment_id: str, data: tuple[str, str]) -> list[Any]:
    """Return the finished runs that wrote a data set, newest first."""
    name, digest = data
    wanted = f"dataset.name = '{name}' AND dataset.digest = '{digest}' AND attributes.status = 'FINISHED'"
    runs = client.search_runs([experiment_id], wanted, order_by=["attributes.start_time DESC"], max_results=100)
    return [run for run in runs if data in _data_of(run, "output")]
