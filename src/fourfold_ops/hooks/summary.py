"""Prints where the results of a run are."""

import logging
import os
from pathlib import Path
from typing import Any

import click
from kedro.framework.context import KedroContext
from kedro.framework.hooks import hook_impl
from kedro.io import CatalogProtocol
from kedro.pipeline import Pipeline

from fourfold_ops import handover

logger = logging.getLogger(__name__)


class SummaryHook:
    """Prints, after a successful run, the paths of its main results and how to open the record of the run.

    A catalog entry with `metadata: {show: Report}` is printed under the name `Report`.
    """

    def __init__(self) -> None:
        self._project_path = Path()
        self._labels: dict[str, str] = {}
        self._filepaths: dict[str, str] = {}

    @hook_impl
    def after_context_created(self, context: KedroContext) -> None:
        """Keep the project folder and the catalog entries that are printed."""
        self._project_path = context.project_path
        entries = context.config_loader["catalog"].items()
        self._filepaths = {
            name: str(context.project_path / e["filepath"]) for name, e in entries if isinstance(e, dict) and "filepath" in e
        }
        self._labels = {name: str((e.get("metadata") or {}).get("show", "")) for name, e in entries if isinstance(e, dict)}

    @hook_impl
    def after_dataset_saved(self, dataset_name: str) -> None:
        """Log where a result is as soon as it is written: the first one appears minutes before the run ends."""
        if label := self._labels.get(dataset_name):
            logger.info("%s: %s", label, os.path.relpath(self._filepaths[dataset_name], Path.cwd()))

    @hook_impl(trylast=True)
    def after_pipeline_run(self, run_params: dict[str, Any], pipeline: Pipeline, catalog: CatalogProtocol) -> None:
        """Print the summary; a step on another machine leaves that to the driver."""
        if handover.received():
            return
        lines = []
        for name in sorted(pipeline.all_outputs()):
            entry: Any = catalog.get(name) if self._labels.get(name) else None
            if entry is not None and "filepath" in entry._describe():
                lines.append((self._labels[name], os.path.relpath(entry._describe()["filepath"], Path.cwd())))
        lines.append(("Runs and models", "make ui"))
        width = max(len(label) for label, _ in lines)
        click.echo("\n".join(["", *(f"  {label:<{width}}  {location}" for label, location in lines)]), err=True)
