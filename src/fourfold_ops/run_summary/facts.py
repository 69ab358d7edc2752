"""The facts of a finished run: stages, the registered model against the trivial answer and the champion, checks, origin."""

import re
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from fourfold_ops.tracking import names

RUN, REUSED, EARLIER = "run", "reused", "not run"
LOCAL_SERVER = "http://127.0.0.1:5000"  # where `make ui` answers
RECORDS = ("dvc.lock", "dvc.run.yml")  # files that a run writes and people commit
HOSTED = re.compile(r"^(?:https?://(?:[^@/]+@)?|git@|ssh://git@)([\w.-]+\.[a-z]+)[:/](.+?)(?:\.git)?/?$")


@dataclass(frozen=True)
class StageFact:
    """One stage: what the run did with it, its seconds (None: unknown) and the bytes of its results."""

    name: str
    action: str  # RUN, REUSED or EARLIER
    seconds: float | None = None
    size: int = 0


@dataclass(frozen=True)
class MetricFact:
    """One metric of the registered model; None where the other side has no such metric."""

    name: str
    lower_is_better: bool
    value: float
    trivial: float | None = None
    champion: float | None = None
    verdict: str = ""  # against the champion; "" if there is none or it cannot be compared


@dataclass(frozen=True)
class ModelFact:
    """The model version that the run registered."""

    name: str
    number: str
    aliases: tuple[str, ...] = ()
    champion: str = ""  # number of the champion; "" if there is none

    @property
    def is_champion(self) -> bool:
        """Whether the registered version is the champion itself."""
        return self.champion == self.number

    @property
    def title(self) -> str:
        """Return e.g. "fourfold, version 3 (candidate)"."""
        return f"{self.name}, version {self.number}" + (f" ({', '.join(self.aliases)})" if self.aliases else "")


@dataclass(frozen=True)
class SuiteFact:
    """The outcome of one suite of data checks."""

    name: str
    expectations: int
    failed: int


@dataclass(frozen=True)
class RunFacts:
    """Everything that is said about a run.

    Attributes:
        run_id: Of the parent run in MLflow; "" if nothing was recorded.
        tags: Of the parent run.
        seed: The parameter `seed`; None without one.
        ended: When the run ended.
        url: Of the run in the user interface of MLflow.
        stage_runs: Ids of the stage runs by stage.
        stages: In the order of the pipeline.
        model: What was registered; None without a model.
        metrics: Of the registered model.
        suites: Data checks of this run.
        places: Results by label, as paths relative to the working directory.
        uncommitted: Files of `RECORDS` that differ from the commit.
    """

    run_id: str = ""
    tags: Mapping[str, str] = field(default_factory=dict)
    seed: Any = None
    ended: datetime = field(default_factory=lambda: datetime.now(UTC))
    url: str = ""
    stage_runs: Mapping[str, str] = field(default_factory=dict)
    stages: Sequence[StageFact] = ()
    model: ModelFact | None = None
    metrics: Sequence[MetricFact] = ()
    suites: Sequence[SuiteFact] = ()
    places: Mapping[str, str] = field(default_factory=dict)
    uncommitted: Sequence[str] = ()

    @property
    def environment(self) -> str:
        """The folder of conf/."""
        return self.tags.get(names.ENVIRONMENT, "")

    @property
    def commit(self) -> str:
        """The commit in full; "" if it is unknown."""
        return self.tags.get(names.COMMIT, "")

    @property
    def is_dirty(self) -> bool:
        """Whether the code differed from the commit."""
        return self.tags.get(names.DIRTY) == "true"

    @property
    def warnings(self) -> str:
        """What a reader of the numbers must know, as sentences; "" if there is nothing."""
        return self.tags.get(names.WARNINGS, "")

    @property
    def commit_url(self) -> str:
        """The page of the commit on the host of the repository; "" if the repository has no host with pages."""
        found = HOSTED.match(self.tags.get("mlflow.source.git.repoURL", ""))
        return f"https://{found[1]}/{found[2]}/commit/{self.commit}" if found and self.commit else ""


def run_url(uri: str, experiment_id: str, run_id: str) -> str:
    """Return where MLflow shows a run; of a store in a file, where `make ui` will show it."""
    server = uri.rstrip("/") if uri.startswith("http") else LOCAL_SERVER
    return f"{server}/#/experiments/{experiment_id}/runs/{run_id}"


def uncommitted_records(project_path: Path) -> list[str]:
    """Return the files of `RECORDS` that exist and differ from the commit; none outside of a git repository."""
    command = ["git", "status", "--porcelain", "--", *RECORDS]
    try:
        done = subprocess.run(command, cwd=project_path, capture_output=True, text=True, timeout=30, check=False)  # noqa: S603
    except (OSError, subprocess.TimeoutExpired):
        return []
    changed = [line[3:].strip() for line in done.stdout.splitlines()] if done.returncode == 0 else []
    return [name for name in RECORDS if name in changed]
