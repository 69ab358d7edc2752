"""Ends a run with a summary: what each stage did, how good the model is, and where everything is."""

import logging
import os
from collections.abc import Generator, Iterator
from pathlib import Path
from typing import Any

import click
from kedro.framework.context import KedroContext
from kedro.framework.hooks import hook_impl
from kedro.io import CatalogProtocol
from kedro.pipeline import Pipeline

from fourfold_ops import handover
from fourfold_ops.errors import UserError, one_line
from fourfold_ops.run_summary.collect import Beginning, Work, collect
from fourfold_ops.run_summary.facts import RunFacts
from fourfold_ops.run_summary.page import write_copy
from fourfold_ops.run_summary.text import summary_text
from fourfold_ops.secrets import redact
from fourfold_ops.tracking import names
from fourfold_ops.tracking.run import ActiveRun, active_run

logger = logging.getLogger(__name__)


class SummaryHook:
    """Prints, after a successful run, its stages, its model, and the paths of its main results.

    A catalog entry with `metadata: {show: Report}` is printed under the name `Report`. One with `metadata: {page: PATH}`, an
    HTML page, is copied there with a head that names the run, its model and the champion; the copy replaces the artifact of the
    page in MLflow, and is printed instead of it. Register the hook after `RegistryHook`, before `LockHook`.
    """

    def __init__(self, project: str = "") -> None:
        """Create the hook.

        Args:
            project: Dotted path of a `PlannedProject`, which knows the claimed folders; without it, no stage counts as reused.
        """
        self._project = project
        self._context: KedroContext
        self._labels: dict[str, str] = {}
        self._pages: dict[str, str] = {}
        self._filepaths: dict[str, str] = {}
        self._catalog: Any = None
        self._beginning = Beginning()

    @hook_impl
    def after_context_created(self, context: KedroContext) -> None:
        """Keep the context and the catalog entries that are printed or copied."""
        self._context = context
        entries = {name: e for name, e in context.config_loader["catalog"].items() if isinstance(e, dict)}
        self._filepaths = {name: str(context.project_path / e["filepath"]) for name, e in entries.items() if "filepath" in e}
        metadata = {name: e.get("metadata") or {} for name, e in entries.items()}
        self._labels = {name: str(found["show"]) for name, found in metadata.items() if "show" in found}
        self._pages = {name: str(found["page"]) for name, found in metadata.items() if "page" in found}

    @hook_impl
    def after_catalog_created(self, catalog: CatalogProtocol) -> None:
        """Keep the catalog."""
        self._catalog = catalog

    @hook_impl
    def before_pipeline_run(self) -> None:
        """Look at the results before any stage works."""
        if not handover.received():
            self._beginning = Beginning.of(self._context.project_path, self._project)

    @hook_impl
    def after_dataset_saved(self, dataset_name: str) -> None:
        """Log where a result is as soon as it is written: the first one appears minutes before the run ends."""
        if label := self._labels.get(dataset_name):
            logger.info("%s: %s", label, os.path.relpath(self._filepaths[dataset_name], Path.cwd()))

    @hook_impl(wrapper=True)
    def after_pipeline_run(self, pipeline: Pipeline) -> Generator[None, Any, Any]:
        """Print the summary when all other hooks are done; a step on another machine leaves that to the driver."""
        if handover.received():
            return (yield)
        run = active_run()  # TrackingHook closes it: only the client is used afterwards
        # A summary is not worth the wait for a server that is away; everything is recorded by then.
        record = ActiveRun(getattr(run.client, "impatient", run.client), run.run_id)
        work = self._work(pipeline)  # before dvc touches the files
        try:
            result = yield
        except UserError:  # it could not be recorded or pushed, but its results are complete
            self.conclude(set(pipeline.all_outputs()), work, record)
            raise
        self.conclude(set(pipeline.all_outputs()), work, record)
        return result

    def _work(self, pipeline: Pipeline) -> Work:
        try:
            return Work.of(self._context, self._catalog, pipeline, self._beginning)
        except Exception as error:
            logger.warning("The summary lacks the stages: %s", redact(one_line(error)))
            logger.debug("The stages could not be summed up.", exc_info=True)
            return Work()

    def conclude(self, shown: set[str], work: Work, run: ActiveRun) -> None:
        """Write the pages and print; nothing that fails here makes a finished run fail.

        Args:
            shown: Names of the data sets that the run wrote.
            work: What its stages did.
            run: The parent run or one of its stages.
        """
        try:
            facts = collect(self._context, work, run, dict(self._places(shown, copied=True)))
            self._write_pages(shown, work, facts, run)
        except Exception as error:
            logger.warning("The summary of the run is incomplete: %s", redact(one_line(error)))
            logger.debug("The summary failed.", exc_info=True)
            facts = RunFacts(stages=work.stages, places=dict(self._places(shown, copied=False)))
        click.echo("\n" + summary_text(facts), err=True)

    def _places(self, shown: set[str], copied: bool) -> Iterator[tuple[str, str]]:
        """Yield label and path of every result that is shown; of a page that was copied, that of the copy."""
        for name in sorted(shown & set(self._labels)):
            is_copy = copied and name in self._pages
            path = self._context.project_path / (self._pages[name] if is_copy else self._filepath(name))
            yield self._labels[name], os.path.relpath(path, Path.cwd())

    def _filepath(self, name: str) -> str:
        described = self._catalog.get(name)._describe() if self._catalog is not None else {}
        return str(described.get("filepath", self._filepaths[name]))

    def _write_pages(self, shown: set[str], work: Work, facts: RunFacts, run: ActiveRun) -> None:
        for name in sorted(shown & set(self._pages)):
            source, target = Path(self._filepath(name)), self._context.project_path / self._pages[name]
            write_copy(source, target, facts)
            for run_id in filter(None, (facts.run_id, facts.stage_runs.get(work.makers.get(name, "")))):
                ActiveRun(run.client, run_id).log_file(target, f"{names.RESULTS}/{target.name}")
