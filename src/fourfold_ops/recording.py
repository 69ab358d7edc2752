"""The record of one run: what is known when it starts, and what it covers when it has ended.

A `dvc repro` starts one process for each stage; together they are one run.
"""

import dataclasses
import json
import logging
import os
from pathlib import Path
from typing import Any

from kedro.framework.context import KedroContext
from kedro.framework.project import pipelines, settings

from fourfold_ops.secrets import redact
from fourfold_ops.stages import stages
from fourfold_ops.tracking import names
from fourfold_ops.tracking.coverage import Coverage, coverage_of
from fourfold_ops.tracking.lineage import NOTE, OPTIONAL, describe_version, note_of
from fourfold_ops.tracking.origin import Origin, origin_of
from fourfold_ops.tracking.processes import dvc_process
from fourfold_ops.tracking.provenance import digest_of_lock, flat, lock_digest
from fourfold_ops.tracking.run_tree import RunTree
from fourfold_ops.tracking.store import TrackingStore
from fourfold_ops.versioning.coverage import with_lock
from fourfold_ops.versioning.repository import lock_with
from fourfold_ops.versioning.run_file import differences, recorded_parameters

logger = logging.getLogger(__name__)


class RunRecord:
    """Opens the parent run, or continues that of the same `dvc repro`, and writes its origin and its coverage."""

    def __init__(
        self, context: KedroContext, store: TrackingStore, run_params: dict[str, Any], origin: Origin | None = None
    ) -> None:
        """Open the parent run; `origin` is what `origin_now` returns, if it is known."""
        self._folder: Path = context.project_path
        self._stage = os.environ.get("DVC_STAGE", "").rpartition(":")[2]  # DVC records it after this process
        parameters = context.config_loader["parameters"]
        self._origin = origin or origin_now(context, run_params)
        self.runs = RunTree(store, parameters, self._origin.tags)
        repro = dvc_process()
        self._earlier = self.runs.join(names.REPRO, repro) if repro else {}
        if self._earlier:
            both = [*(run_params.get("pipeline_names") or ()), *self._earlier[names.PIPELINES].split(", ")]
            whole = origin_now(context, {**run_params, "pipeline_names": both})
            self._origin = dataclasses.replace(self._origin, tags=whole.tags)
            self.runs.parent.set_tags(whole.tags)
        else:
            name = f"{run_params.get('env') or 'base'} {run_params.get('run_id', '')}".strip()
            self.runs.open_parent(name, {names.REPRO: repro} if repro else {})
            self.runs.parent.log_json(json.loads(json.dumps(parameters, default=str)), names.PARAMETERS)
        self._log_files(self._origin.files)

    def log_origin(self) -> None:
        """Write the origin again, into runs that an earlier process began."""
        self.runs.tag_all(self._origin.tags)
        self._log_files(self._origin.files)

    def conclude(self, ran: set[str]) -> None:
        """Record what the run covers, and the lock, in all runs and in the model version that it registered.

        Args:
            ran: Names of the nodes of this process.
        """
        self.conclude_with(self._coverage(ran))

    def conclude_with(self, coverage: Coverage) -> None:
        """Record this coverage, and the lock, in all runs and in the model version that it registered."""
        known = self.runs.parent.tags()
        results = {key: known[key] for key in (names.RESULTS_SCOPE, names.RESULTS_LEFT_OUT) if key in known}
        tags = coverage.tags() | self._log_lock() | results
        is_about_numbers = bool(results)
        if is_about_numbers and coverage.part:
            tags[names.RESULTS_SCOPE] = names.PARTIAL
        warnings = [*self._origin.warnings, *(coverage.warnings() if is_about_numbers else [])]
        warnings += [results[names.RESULTS_LEFT_OUT]] if names.RESULTS_LEFT_OUT in results else []
        if warnings:
            tags[names.WARNINGS] = redact(" ".join(warnings))
            tags[NOTE] = note_of(tags[names.WARNINGS])
        for key in {*OPTIONAL, NOTE} & set(self._earlier):  # of an earlier stage of the same `dvc repro`
            if key not in tags:
                self.runs.parent.remove_tag(key)
        self.runs.tag_all(tags)
        self._describe_versions({**self._origin.tags, **tags})
        for warning in warnings:
            logger.warning(redact(warning))

    def _coverage(self, ran: set[str]) -> Coverage:
        table = stages()
        earlier = set(self._earlier.get(names.STAGES, "").split(", "))
        ran = ran | {node for node, stage in table.items() if stage in earlier}
        return with_lock(coverage_of(ran, table, {node.name for node in pipelines["__default__"].nodes}), self._folder)

    def _log_lock(self) -> dict[str, str]:
        """Store dvc.lock as this run leaves it, and return its tag."""
        for name in (names.LOCK, names.RUN_FILE):
            if (path := self._folder / Path(name).name).exists():
                self.runs.parent.log_file(path, name)
        if not self._stage:
            return {names.LOCK_MD5: lock_digest(self._folder)}
        lock = lock_with(self._folder, self._stage)
        self.runs.parent.log_bytes(lock, names.LOCK)
        return {names.LOCK_MD5: digest_of_lock(lock)}

    def _describe_versions(self, tags: dict[str, str]) -> None:
        own = {key: value for key, value in tags.items() if key != NOTE}
        for run_id in self.runs.opened.values():
            describe_version(self.runs.store.client, run_id, self.runs.parent.run_id, own)

    def _log_files(self, files: dict[str, bytes]) -> None:
        for name, content in files.items():
            self.runs.parent.log_bytes(content, name)


def origin_now(context: KedroContext, run_params: dict[str, Any]) -> Origin:
    """Return the origin of the run. What conf/local changes becomes part of the command: no commit has that folder."""
    source = str(context.config_loader.conf_source)
    given, environment = run_params.get("runtime_params") or {}, run_params.get("env") or "base"
    local: dict[str, Any] = {}
    if any((Path(source) / "local").glob("**/parameters*")):
        arguments, parameters = settings.CONFIG_LOADER_ARGS, context.config_loader["parameters"]
        without = recorded_parameters(source, arguments, "base" if environment == "local" else environment, given)
        values = flat(parameters)
        local = {name: values[name] for name in differences(parameters, without) if name in values}
    changed = {**run_params, "runtime_params": {**flat(given), **local}}
    return origin_of(context.project_path, changed, source, sorted(local))
