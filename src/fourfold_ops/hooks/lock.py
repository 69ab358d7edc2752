"""Holds the lock of the data folder during a run."""

from collections.abc import Generator
from pathlib import Path
from typing import Any

from kedro.framework.context import KedroContext
from kedro.framework.hooks import hook_impl

from fourfold_ops import data_lock, handover
from fourfold_ops.atomic import remove_abandoned
from fourfold_ops.tracking.provenance import command_line


class LockHook:
    """Takes the lock before any other hook acts, and releases it after the last one has recorded the run.

    Register it last: Kedro calls the hook that it registered last first before a run, and last after it. A step on another
    machine takes no lock, because its driver holds it; of several processes that torchrun started, the first one holds it.
    """

    def __init__(self, folder: str = "data") -> None:
        """Create the hook for a data folder, relative to the project."""
        self._name = folder
        self._folder = Path()

    @hook_impl
    def after_context_created(self, context: KedroContext) -> None:
        """Keep the path of the data folder."""
        self._folder = context.project_path / self._name

    @hook_impl(tryfirst=True)
    def before_pipeline_run(self, run_params: dict[str, Any]) -> None:
        """Take the lock and remove temporary files of killed runs; raise BusyError if another process holds the lock."""
        if not handover.received() and handover.rank() == 0:
            data_lock.acquire(self._folder, command_line(run_params))
            remove_abandoned(self._folder)

    @hook_impl(wrapper=True)
    def after_pipeline_run(self) -> Generator[None, Any, Any]:
        """Release the lock when all other hooks are done, also those that wrap others."""
        try:
            return (yield)
        finally:
            data_lock.release(self._folder)

    @hook_impl(trylast=True)
    def on_pipeline_error(self) -> None:
        """Release the lock."""
        data_lock.release(self._folder)
