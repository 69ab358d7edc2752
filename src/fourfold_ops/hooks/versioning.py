"""Records each stage that ran in DVC's lock, or leaves the lock unchanged."""

import logging
import os
from pathlib import Path
from typing import Any

from kedro.framework.context import KedroContext
from kedro.framework.hooks import hook_impl
from kedro.pipeline import Pipeline

from fourfold_ops import handover
from fourfold_ops.errors import UserError, one_line
from fourfold_ops.stages import stages
from fourfold_ops.versioning.repository import commit_stages, digest_of_code, stage_names
from fourfold_ops.versioning.run_file import RUN_FILE, differences, flags, recorded_parameters, write_run_file

logger = logging.getLogger(__name__)


class VersioningHook:
    """Commits each complete stage that ran: its parameters, code, inputs and outputs.

    It commits nothing, and logs the reason, where the lock would not describe the results: only part of a stage ran, conf/local
    changed a parameter, or code or configuration was edited during the run. Under `dvc repro` it leaves the commit to DVC, and
    stops a run whose flags make parameters differ from those that DVC will record. A step on another machine leaves everything
    to the driver.
    """

    def __init__(self) -> None:
        self._context: KedroContext
        self._parameters: dict[str, Any] = {}
        self._code = ""

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
        self._code = digest_of_code(self._context.project_path)
        if "DVC_STAGE" in os.environ:
            self._check_flags(run_params)

    @hook_impl(tryfirst=True)
    def after_pipeline_run(self, run_params: dict[str, Any], pipeline: Pipeline) -> None:
        """Commit, or log why not. A failure here does not fail the run: it is logged, and the lock stays unchanged."""
        if handover.received() or "DVC_STAGE" in os.environ or not _has_dvc(self._context.project_path):
            return
        try:
            done = self._commit(run_params, pipeline)
        except Exception as error:
            logger.debug("dvc commit failed.", exc_info=True)
            logger.error("The results are complete, but dvc.lock was not written: %s", one_line(error))
        else:
            logger.info("Recorded in dvc.lock: %s", ", ".join(done))

    def _commit(self, run_params: dict[str, Any], pipeline: Pipeline) -> list[str]:
        folder, environment = self._context.project_path, _environment(run_params)
        runtime_params = run_params.get("runtime_params") or {}
        whole = [name for name in stage_names(folder) if _is_whole(name, pipeline)]
        if not whole or run_params.get("only_missing_outputs"):
            raise UserError("only part of a stage ran.", "Run the whole stage with --pipelines to record it.")
        if changed := differences(self._parameters, self._recorded(environment, runtime_params)):
            raise UserError(
                f"conf/local changes {', '.join(changed)}.", "Put scientific parameters into a folder that git tracks."
            )
        if digest_of_code(folder) != self._code:
            raise UserError("code or configuration was edited during the run.", "Run again: unchanged work is not repeated.")
        write_run_file(folder, environment, runtime_params)
        commit_stages(folder, whole)
        return whole

    def _check_flags(self, run_params: dict[str, Any]) -> None:
        import yaml

        run_file = yaml.safe_load((self._context.project_path / RUN_FILE).read_text(encoding="utf-8"))
        given = flags(_environment(run_params), run_params.get("runtime_params") or {})
        if given == run_file["flags"]:
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
