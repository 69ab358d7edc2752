"""Records each stage that ran in DVC's lock, or leaves the lock unchanged."""

import logging
import os
from collections.abc import Generator
from pathlib import Path
from typing import Any

from kedro.framework.context import KedroContext
from kedro.framework.hooks import hook_impl
from kedro.pipeline import Pipeline

from fourfold_ops import handover
from fourfold_ops.errors import EXIT_NOT_RECORDED, UserError, one_line
from fourfold_ops.loading import load_object
from fourfold_ops.secrets import redact
from fourfold_ops.stages import stages
from fourfold_ops.versioning.external import dependencies
from fourfold_ops.versioning.remote import check_remote, is_push_requested, push
from fourfold_ops.versioning.repository import commit_stages, digest_of_code, names_of_files, stage_names
from fourfold_ops.versioning.run_file import (
    RUN_FILE,
    differences,
    flags,
    recorded_files,
    recorded_parameters,
    write_run_file,
)

logger = logging.getLogger(__name__)


class NotRecordedError(UserError):
    """The stages of a run are complete, but dvc.lock does not name their results; the same command records them."""

    exit_code = EXIT_NOT_RECORDED

    def __init__(self, message: str) -> None:
        super().__init__(message, "The same command records them: finished work is not repeated.")


class NotPushedError(UserError):
    """The results of a run are complete and recorded, but not in the remote."""

    exit_code = EXIT_NOT_RECORDED

    def __init__(self, reason: str) -> None:
        super().__init__(f"The results are recorded in dvc.lock, but were not pushed: {reason}", "Push them with `make push`.")


class VersioningHook:
    """Commits each complete stage that ran: its parameters, code, inputs and outputs; with `--push` it pushes them.

    It commits nothing where the lock would not describe the results. If only part of a stage ran, it logs a warning. If
    conf/local changed a parameter, code or configuration was edited during the run, or another process holds DVC's lock, it
    raises NotRecordedError at the end. Under `dvc repro` it leaves the commit to DVC, and stops a run whose flags make
    parameters differ from those that DVC will record. A step on another machine leaves everything to the driver.
    """

    def __init__(self, files: str = "") -> None:
        """Create the hook.

        Args:
            files: Dotted path of a function of the project, (parameters) → what `external.dependencies` takes: the files that
                a run reads from outside the project. Without it there are none.
        """
        self._files = files
        self._context: KedroContext
        self._parameters: dict[str, Any] = {}
        self._code = ""
        self._problem = ""  # why the last run was not recorded
        self._unpushed = ""  # why its results were not pushed

    @hook_impl
    def after_context_created(self, context: KedroContext) -> None:
        """Keep the context and the current parameters."""
        self._context = context
        self._parameters = context.config_loader["parameters"]

    @hook_impl
    def before_pipeline_run(self, run_params: dict[str, Any]) -> None:
        """Keep a digest of code and configuration; under `dvc repro`, check the parameters that DVC will record."""
        if handover.received() or not _has_dvc(self._context.project_path):
            return
        if is_push_requested():
            check_remote(self._context.project_path)
        self._code = digest_of_code(self._context.project_path)
        flags(_environment(run_params), run_params.get("runtime_params") or {})  # refuse now what cannot be recorded later
        if "DVC_STAGE" in os.environ:
            self._check_flags(run_params)

    @hook_impl(wrapper=True)
    def after_pipeline_run(self, run_params: dict[str, Any], pipeline: Pipeline) -> Generator[None, Any, Any]:
        """Commit before the other hooks act; after them, raise NotRecordedError if the commit failed.

        MLflow has the run as finished in both cases, because its results are complete.
        """
        self._problem = self._unpushed = ""
        self._record(run_params, pipeline)
        result = yield
        if self._problem:
            raise NotRecordedError(f"The results are complete, but dvc.lock was not written: {self._problem}")
        if self._unpushed:
            raise NotPushedError(self._unpushed)
        return result

    def _record(self, run_params: dict[str, Any], pipeline: Pipeline) -> None:
        if handover.received() or "DVC_STAGE" in os.environ or not _has_dvc(self._context.project_path):
            return
        tracked = set(stage_names(self._context.project_path))
        if tracked.isdisjoint(stages().get(node.name, "") for node in pipeline.nodes):
            return  # e.g. benchmarks: DVC has no stage for this pipeline
        if not self._whole_stages(pipeline) or run_params.get("only_missing_outputs"):
            logger.warning(
                "Not recorded in dvc.lock: only part of a stage ran. Run the whole stage with --pipelines to record it."
            )
            return
        try:
            done = self._commit(run_params, pipeline)
        except Exception as error:
            logger.debug("dvc commit failed.", exc_info=True)
            self._problem = one_line(error)
            return
        logger.info("Recorded in dvc.lock: %s", ", ".join(done))
        if is_push_requested():
            self._push(done)

    def _push(self, stages: list[str]) -> None:
        try:
            push(self._context.project_path, stages)
        except Exception as error:
            logger.debug("dvc push failed.", exc_info=True)
            self._unpushed = redact(one_line(error))

    def _commit(self, run_params: dict[str, Any], pipeline: Pipeline) -> list[str]:
        folder, environment = self._context.project_path, _environment(run_params)
        runtime_params = run_params.get("runtime_params") or {}
        whole = self._whole_stages(pipeline)
        if changed := differences(self._parameters, self._recorded(environment, runtime_params)):
            raise UserError(
                f"conf/local changes {', '.join(changed)}.", "Put scientific parameters into a folder that git tracks."
            )
        if digest_of_code(folder) != self._code:
            raise UserError("code or configuration was edited during the run.", "Run again: unchanged work is not repeated.")
        files, notes = self._files_of(whole)
        if write_run_file(folder, environment, runtime_params, files):
            for note in notes:
                logger.warning(note)
        # `--only-changed` has left out stages whose results are those of this configuration: the lock shall say so
        reused = set(os.environ.get(handover.REUSED, "").split(","))
        commit_stages(folder, [name for name in stage_names(folder) if name in whole or name in reused])
        return whole

    def _files_of(self, whole: list[str]) -> tuple[dict[str, str], list[str]]:
        """Return the files from outside, and notes about them; those that no stage of this run reads stay as they were."""
        folder = self._context.project_path
        wanted = load_object(self._files)(self._parameters) if self._files else {}
        kept, read = recorded_files(folder), names_of_files(folder, whole)
        found, notes = dependencies(folder, {name: wanted[name] for name in wanted if name in read or name not in kept})
        return {name: found.get(name) or kept[name] for name in wanted}, notes

    def _whole_stages(self, pipeline: Pipeline) -> list[str]:
        return [name for name in stage_names(self._context.project_path) if _is_whole(name, pipeline)]

    def _check_flags(self, run_params: dict[str, Any]) -> None:
        import yaml

        run_file = yaml.safe_load((self._context.project_path / RUN_FILE).read_text(encoding="utf-8"))
        given = flags(_environment(run_params), run_params.get("runtime_params") or {})
        if given == run_file["flags"].strip():
            return
        if changed := differences(self._parameters, self._recorded(run_file["environment"], {})):
            raise UserError(
                f"$KEDRO_RUN_FLAGS changes {', '.join(changed)}, which dvc.lock would not show.",
                f"Name the environment and flags in {RUN_FILE}, or use `kedro run {given}`, which records them.",
            )

    def _recorded(self, environment: str, runtime_params: dict[str, Any]) -> dict[str, Any]:
        from kedro.framework.project import settings

        conf_source = str(self._context.project_path / settings.CONF_SOURCE)
        recorded: dict[str, Any] = recorded_parameters(conf_source, settings.CONFIG_LOADER_ARGS, environment, runtime_params)
        return recorded


def _environment(run_params: dict[str, Any]) -> str:
    """Return the folder of conf/ that was merged over base; the default of Kedro, `local`, is not recorded."""
    environment = run_params.get("env")
    return "base" if environment in (None, "local") else str(environment)


def _is_whole(stage: str, pipeline: Pipeline) -> bool:
    nodes = {name for name, owner in stages().items() if owner == stage}
    return bool(nodes) and nodes <= {node.name for node in pipeline.nodes}


def _has_dvc(project_path: Path) -> bool:
    return (project_path / "dvc.yaml").exists() and (project_path / ".dvc").is_dir()
