"""Collects the facts of a run: from its files before they are committed, from MLflow once everything is recorded."""

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from kedro.framework.context import KedroContext
from kedro.pipeline import Pipeline

from fourfold_ops import handover
from fourfold_ops.datasets import StageSecondsDataset
from fourfold_ops.loading import load_object
from fourfold_ops.planning import contents
from fourfold_ops.planning.layout import DVC_YAML, Stage, read_stages
from fourfold_ops.planning.project import PlannedProject
from fourfold_ops.run_summary.facts import EARLIER, REUSED, RUN, RunFacts, StageFact, run_url, uncommitted_records
from fourfold_ops.run_summary.models import registered_by, stage_runs, suites_of
from fourfold_ops.stages import stage_of
from fourfold_ops.tracking.run import ActiveRun
from fourfold_ops.tracking.run_tree import PARENT_TAG


@dataclass(frozen=True)
class Beginning:
    """How the claimed folders were when a run began: a stage that leaves them so has found its work done.

    Attributes:
        project: Knows the claimed folders; None: no stage counts as reused.
        folders: Fingerprint and content of every claimed folder, by stage.
    """

    project: PlannedProject | None = None
    folders: Mapping[str, Mapping[Path, tuple[str, str]]] = field(default_factory=dict)

    @classmethod
    def of(cls, root: Path, project: str) -> "Beginning":
        """Look at the results before a run; `project` is the dotted path of a `PlannedProject`, "" without one."""
        if not project or not (root / DVC_YAML).is_file():
            return cls()
        planned: PlannedProject = load_object(project)
        return cls(planned, {stage.name: _claimed(planned, root, stage) for stage in read_stages(root)})

    def is_unchanged(self, root: Path, stage: Stage) -> bool:
        """Return whether a stage has claimed folders, and left them as they were.

        Content counts, not the time of a file: finished work writes its manifests and exports again, with the same bytes.
        """
        before = self.folders.get(stage.name)
        return bool(before) and self.project is not None and _claimed(self.project, root, stage) == before


@dataclass(frozen=True)
class Work:
    """What the stages of a run did.

    Attributes:
        stages: All stages of the project, or only those of the run where dvc.yaml lists none.
        makers: The stage that writes a data set, by its name in the catalog.
    """

    stages: list[StageFact] = field(default_factory=list)
    makers: Mapping[str, str] = field(default_factory=dict)

    @classmethod
    def of(cls, context: KedroContext, catalog: Any, pipeline: Pipeline, beginning: "Beginning") -> "Work":
        """Look at the results of a run that has just ended, before anything else touches their files.

        Args:
            context: of the project.
            catalog: of the run.
            pipeline: what ran.
            beginning: how the claimed folders were when the run began.
        """
        makers = {name: stage_of(node) for node in pipeline.nodes for name in node.outputs}
        ran = list(dict.fromkeys(stage_of(node) for node in pipeline.nodes))
        root = context.project_path
        listed = {stage.name: stage for stage in read_stages(root)} if (root / DVC_YAML).is_file() else {}
        seconds = _seconds(catalog)
        left_out = set(os.environ.get(handover.REUSED, "").split(","))  # by `--only-changed`, as up to date
        facts = []
        for name in [*listed, *(name for name in ran if name not in listed)]:
            stage = listed.get(name)
            reused = name in ran and stage is not None and beginning.is_unchanged(root, stage)
            facts.append(
                StageFact(
                    name,
                    REUSED if reused or name in left_out else RUN if name in ran else EARLIER,
                    seconds.get(name) if name in ran else None,
                    sum(contents.size(root / out) for out in stage.outputs) if stage else 0,
                )
            )
        return cls(facts, makers)


def collect(context: KedroContext, work: Work, run: ActiveRun, places: Mapping[str, str]) -> RunFacts:
    """Return the facts of a run that is recorded.

    Args:
        context: of the project.
        work: what its stages did.
        run: the parent run or one of its stages; without a client, nothing is known from MLflow.
        places: paths of results by label.
    """
    parameters = context.config_loader["parameters"]
    own: dict[str, Any] = {
        "seed": parameters.get("seed"),
        "stages": work.stages,
        "places": places,
        "uncommitted": uncommitted_records(context.project_path),
    }
    if run.client is None:
        return RunFacts(**own)
    info = run.client.get_run(run.run_id)
    parent = info.data.tags.get(PARENT_TAG, run.run_id)
    children = stage_runs(run.client, parent)
    model, metrics = registered_by(run.client, children, _gate(context))
    return RunFacts(
        run_id=parent,
        tags=run.client.get_run(parent).data.tags,
        url=run_url(_tracking_uri(), info.info.experiment_id, parent),
        stage_runs={child.data.tags.get("stage", ""): child.info.run_id for child in children},
        model=model,
        metrics=metrics,
        suites=suites_of(children),
        **own,
    )


def _tracking_uri() -> str:
    import mlflow

    return str(mlflow.get_tracking_uri())


def _seconds(catalog: Any) -> dict[str, float]:
    entries = (catalog.get(name) for name in catalog.keys())  # noqa: SIM118, a catalog is no mapping
    table = next((entry for entry in entries if isinstance(entry, StageSecondsDataset)), None)
    return {} if table is None else table.load()


def _claimed(project: PlannedProject, root: Path, stage: Stage) -> dict[Path, tuple[str, str]]:
    """Return the digest of the fingerprint and of the content of every claimed folder of a stage."""
    claims = {folder: claim for out in stage.outputs for folder, claim in project.claims(root / out).items()}
    return {folder: (claim.digest, contents.digest(folder)) for folder, claim in claims.items()}


def _gate(context: KedroContext) -> Mapping[str, Any]:
    """Return the content of promotion.yml; {} without one."""
    from kedro.config import MissingConfigException

    try:
        found: Mapping[str, Any] = context.config_loader["promotion"] or {}
    except (MissingConfigException, KeyError):
        return {}
    return found
