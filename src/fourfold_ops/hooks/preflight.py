"""Checks what a run needs from outside before it changes anything."""

from typing import Any

from kedro.framework.context import KedroContext
from kedro.framework.hooks import hook_impl
from kedro.pipeline import Pipeline

from fourfold_ops import handover
from fourfold_ops.errors import UserError
from fourfold_ops.loading import load_object
from fourfold_ops.stages import stage_of


class PreflightHook:
    """Calls a function of the project with the stages of a run and its parameters, before anything is recorded or written.

    Register it just before `LockHook`: then only the lock comes earlier.
    """

    def __init__(self, check: str) -> None:
        """Create the hook for a function, given by its dotted path: (stages, parameters, catalog) → None, or ValueError.

        The catalog is its configuration, as in conf/.
        """
        self._check = check
        self._context: KedroContext

    @hook_impl
    def after_context_created(self, context: KedroContext) -> None:
        """Keep the context: its parameters and the project folder."""
        self._context = context

    @hook_impl(tryfirst=True)
    def before_pipeline_run(self, pipeline: Pipeline) -> None:
        """Raise UserError if the function refuses; a step on another machine relies on the check of its driver."""
        if handover.received():
            return
        loader = self._context.config_loader
        self.check({stage_of(node) for node in pipeline.nodes}, loader["parameters"], loader["catalog"])

    def check(self, stages: set[str], parameters: dict[str, Any], catalog: dict[str, Any]) -> None:
        """Raise UserError if the function refuses these stages with this configuration; `kedro plan` calls it too."""
        try:
            load_object(self._check)(stages, parameters, catalog)
        except ValueError as error:
            raise UserError(str(error)) from error
