"""Gives registered models their alias at the very end of a run."""

from collections.abc import Generator
from typing import Any

from kedro.framework.hooks import hook_impl

from fourfold_ops import handover
from fourfold_ops.registry.confirmation import confirm
from fourfold_ops.tracking.run import active_run


class RegistryHook:
    """Moves the alias `candidate` to what a run registered, after everything else of the run is complete and recorded.

    A run that fails, is stopped or cannot be recorded in dvc.lock moves no alias: the same command does it when it succeeds.
    A step on another machine leaves it to the driver. Register this hook after `VersioningHook`.
    """

    @hook_impl(wrapper=True)
    def after_pipeline_run(self) -> Generator[None, Any, Any]:
        """Move the alias when all other hooks are done."""
        run = active_run()  # TrackingHook closes it: only the client is used afterwards
        result = yield
        if run.client is not None and not handover.received():
            confirm(run.client, run.run_id)
        return result
