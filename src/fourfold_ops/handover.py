"""What the driver of a run passes to the processes that run its steps elsewhere: environment variables, defined only here.

Driver and step are the same program on two machines. A hook asks this module on which side it is: a step writes into the MLflow
runs that the driver opened and never ends them, commits nothing to DVC, and keeps its own log file on the shared volume.
"""

import hashlib
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

STEP = "KEDRO_STEP"  # name of the step; set only in the process of a step
PARENT_RUN = "KEDRO_PARENT_RUN_ID"  # MLflow
STAGE_RUNS = "KEDRO_STAGE_RUN_IDS"  # MLflow, JSON: stage → run
GIT_TAGS = "KEDRO_GIT_TAGS"  # JSON; an image has no .git
PARAMETERS = "KEDRO_PARAMETERS_DIGESTS"  # JSON: section → digest
LOG_FILE = "KEDRO_LOG_FILE"  # relative to the project
IMAGE = "KEDRO_IMAGE"  # the container image in which the process runs
INHERITED = "KEDRO_INHERITED_VARIABLES"  # names, by commas, of variables that steps get with the values of the driver
REUSED = "KEDRO_REUSED_STAGES"  # names, by commas, of stages that `kedro run --only-changed` leaves out as up to date
PART_INDEX = "JOB_COMPLETION_INDEX"  # set by Kubernetes in every pod of an Indexed Job
PART_NUMBERS = "KEDRO_PART_NUMBERS"  # the share of each completion index, e.g. "1,3" when only those run again
PART_COUNT = "KEDRO_PART_COUNT"  # number of shares; absent where the step is not split
RANK = "RANK"  # torchrun


@dataclass(frozen=True)
class Handover:
    """What a step receives about the run that it belongs to.

    Attributes:
        step: Name of the step.
        parent_run: Id of the MLflow run of the whole.
        stage_runs: Ids of the MLflow runs of the stages, by stage.
        git_tags: Commit, branch and dirty flag of the driver's checkout.
        parameters: Digest of every section of the driver's parameters.
    """

    step: str
    parent_run: str = ""
    stage_runs: dict[str, str] = field(default_factory=dict)
    git_tags: dict[str, str] = field(default_factory=dict)
    parameters: dict[str, str] = field(default_factory=dict)

    def variables(self) -> dict[str, str]:
        """Return the environment variables that carry it, and those that steps inherit from the driver."""
        return {
            STEP: self.step,
            PARENT_RUN: self.parent_run,
            STAGE_RUNS: json.dumps(self.stage_runs, sort_keys=True),
            GIT_TAGS: json.dumps(self.git_tags, sort_keys=True),
            PARAMETERS: json.dumps(self.parameters, sort_keys=True),
            **inherited(),
        }


def received(environment: Mapping[str, str] = os.environ) -> Handover | None:
    """Return what the driver passed; None if this process is not a step of another process's run."""
    if not environment.get(STEP):
        return None
    tables = [json.loads(environment.get(name) or "{}") for name in (STAGE_RUNS, GIT_TAGS, PARAMETERS)]
    return Handover(environment[STEP], environment.get(PARENT_RUN, ""), *tables)


def inherited(environment: Mapping[str, str] = os.environ) -> dict[str, str]:
    """Return the variables that steps get with the values that they have in this process."""
    names = environment.get(INHERITED, "").split(",")
    return {name: environment[name] for name in names if name and name in environment}


def work_split(environment: Mapping[str, str] = os.environ) -> tuple[int, int]:
    """Return (index of this process's share of the step, number of shares); (0, 1) where the step is not split."""
    count = int(environment.get(PART_COUNT) or 1)
    if count == 1:
        return 0, 1
    numbers = environment.get(PART_NUMBERS) or ",".join(map(str, range(count)))
    return int(numbers.split(",")[int(environment[PART_INDEX])]), count


def rank(environment: Mapping[str, str] = os.environ) -> int:
    """Return the rank of this process among those that torchrun started; 0 without torchrun."""
    return int(environment.get(RANK) or 0)


def writes_results(environment: Mapping[str, str] = os.environ) -> bool:
    """Return whether this process saves what its nodes return and reports it: one process of a step does."""
    return rank(environment) == 0 and work_split(environment)[1] == 1


def digests(parameters: Mapping[str, Any]) -> dict[str, str]:
    """Return a short digest of every top-level section of the parameters."""
    texts = {name: json.dumps(value, sort_keys=True, default=str) for name, value in parameters.items()}
    return {name: hashlib.sha256(text.encode()).hexdigest()[:12] for name, text in sorted(texts.items())}
