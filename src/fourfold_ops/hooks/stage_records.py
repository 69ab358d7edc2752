"""Records what each stage was made from and what that took, for `kedro plan`."""

import resource
import sys
import time
from collections import Counter
from typing import Any

from kedro.framework.context import KedroContext
from kedro.framework.hooks import hook_impl
from kedro.pipeline import Pipeline
from kedro.pipeline.node import Node

from fourfold_ops import handover
from fourfold_ops.loading import load_object
from fourfold_ops.planning import contents
from fourfold_ops.planning.layout import DVC_YAML, Stage, read_stages
from fourfold_ops.planning.plan import DATA
from fourfold_ops.planning.project import PlannedProject
from fourfold_ops.planning.records import Record, sections_of, write_record
from fourfold_ops.stages import stage_of, stages

PEAK_UNIT = 1 if sys.platform == "darwin" else 1024  # bytes of ru_maxrss


class StageRecordsHook:
    """Writes `data/stages.json`: an entry for each stage as soon as all of it has run, also if a later one fails.

    A step on another machine leaves that to its driver.
    """

    def __init__(self, project: str) -> None:
        """Create the hook for a `PlannedProject`, given by its dotted path."""
        self._project = project
        self._context: KedroContext
        self._stages: dict[str, Stage] = {}  # those that this run does as a whole
        self._recorded: set[str] = set()
        self._begun: dict[str, dict[str, Any]] = {}  # what is known of each when the run starts
        self._left: Counter[str] = Counter()
        self._seconds: dict[str, float] = {}
        self._last = 0.0

    @hook_impl
    def after_context_created(self, context: KedroContext) -> None:
        """Keep the context: configuration and project folder."""
        self._context = context

    @hook_impl
    def before_pipeline_run(self, run_params: dict[str, Any], pipeline: Pipeline) -> None:
        """Note parameters and code before anything runs: they may be edited meanwhile."""
        self._stages, self._recorded = {}, set()
        is_partial = run_params.get("only_missing_outputs")  # then nodes are skipped whatever they were made from
        if handover.received() or is_partial or not (self._context.project_path / DVC_YAML).is_file():
            return
        names = {node.name for node in pipeline.nodes}
        table = {stage: {node for node, owner in stages().items() if owner == stage} for stage in set(stages().values())}
        whole = {stage for stage, nodes in table.items() if nodes <= names}
        self._stages = {one.name: one for one in read_stages(self._context.project_path) if one.name in whole}
        self._left = Counter(stage_of(node) for node in pipeline.nodes)
        self._seconds, self._last = {}, time.monotonic()
        self._begun = self._beginnings(pipeline)

    @hook_impl(tryfirst=True)
    def before_dataset_loaded(self, node: Node) -> None:
        """Record the stage before, whose results are all saved when another stage begins."""
        self._record_ended(stage_of(node))

    @hook_impl(tryfirst=True)
    def before_node_run(self, node: Node) -> None:
        """Record the stage before, for a node without inputs."""
        self._record_ended(stage_of(node))

    @hook_impl
    def after_node_run(self, node: Node) -> None:
        """Count the node as done, and its time."""
        now, stage = time.monotonic(), stage_of(node)
        self._seconds[stage] = self._seconds.get(stage, 0.0) + now - self._last
        self._left[stage] -= 1
        self._last = now

    @hook_impl(tryfirst=True)
    def after_pipeline_run(self) -> None:
        """Record all stages, now that every runner has saved everything; of those that ran elsewhere, no time is known."""
        for name in self._stages:
            self._record(name)

    def _beginnings(self, pipeline: Pipeline) -> dict[str, dict[str, Any]]:
        parameters, catalog = self._context.config_loader["parameters"], self._context.config_loader["catalog"]
        project = self._loaded()
        datasets = {
            stage: {name for node in pipeline.nodes if stage_of(node) == stage for name in (*node.inputs, *node.outputs)}
            for stage in self._stages
        }
        code, places = project.stage_code(datasets, catalog, parameters), project.outside(parameters)
        root = self._context.project_path
        local = {name: place for name, place in places.items() if place and "://" not in place}
        return {
            name: {
                "parameters": sections_of(parameters, stage),
                "code": code.get(name, {}),
                "outside": {key: contents.outside_digest(root / local[key]) for key in stage.outside if key in local},
            }
            for name, stage in self._stages.items()
        }

    def _record_ended(self, current: str) -> None:
        for name in self._stages:
            if name != current and self._left[name] == 0 and name not in self._recorded:
                self._recorded.add(name)
                self._record(name)

    def _record(self, name: str) -> None:
        stage, root = self._stages[name], self._context.project_path
        claims = {path: claim for out in stage.outputs for path, claim in self._loaded().claims(root / out).items()}
        record = Record(
            **self._begun[name],
            inputs={path: contents.digest(root / path) for path in stage.inputs},
            outputs={path: contents.digest(root / path) for path in stage.outputs},
            claims={path.relative_to(root).as_posix(): claim.digest for path, claim in claims.items()},
            ended_ns=time.time_ns(),
            seconds=round(self._seconds.get(name, 0.0), 1),
            peak_bytes=resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * PEAK_UNIT,
        )
        write_record(root / DATA, name, record)

    def _loaded(self) -> PlannedProject:
        project: PlannedProject = load_object(self._project)
        return project
