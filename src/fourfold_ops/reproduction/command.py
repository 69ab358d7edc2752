"""The command `kedro reproduce`: repeat a past run, or verify its data, and compare with the record."""

import os
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from kedro.utils import find_kedro_project

from fourfold_ops.errors import EXIT_DIFFERS, UserError
from fourfold_ops.loading import load_object

if TYPE_CHECKING:
    from fourfold_ops.reproduction.comparison import Comparison

FOLDER = "reproductions"
HELP = """Repeat a past run in a separate worktree with empty data, and compare all results with its record.

    RUN is the id of a run in MLflow, MODEL a version in its registry (models:/name/3, name@alias), and REVISION a commit,
    branch or tag whose dvc.lock records the run. By default it is HEAD, and with --verify-only the working tree. The exit
    code is 0 only if the record holds.
    """


def reproduce_command(variables: str = "") -> click.Command:
    """Return the command.

    Args:
        variables: Dotted path of a function of the project: (recorded facts about the machine, by "stage.name") → environment
            variables with which this machine rounds as that one, where it can.
    """

    @click.command(help=HELP)
    @click.argument("reference", required=False, metavar="[RUN | REVISION | MODEL]")
    @click.option("--verify-only", is_flag=True, help="Run nothing: hash data, code and parameters, compare with dvc.lock.")
    @click.option("--stage", "stages", multiple=True, help="Only this stage of dvc.yaml; the option can be repeated.")
    @click.option(
        "--folder",
        type=click.Path(file_okay=False, path_type=Path),
        help=f"Where the run is repeated and the reports are written. [default: {FOLDER}/NAME]",
    )
    @click.option(
        "--site", help="Run the steps on the cluster of conf/SITE/kubernetes.yml, as `kedro run --runner=kubernetes` does."
    )
    @click.option("--keep", is_flag=True, help="Keep the worktree with its data also if everything is equal.")
    def reproduce(
        reference: str | None, verify_only: bool, stages: tuple[str, ...], folder: Path | None, site: str | None, keep: bool
    ) -> None:
        project = find_kedro_project(Path.cwd())
        if project is None:
            raise UserError(f"{Path.cwd()} is not in a project.", "Change to a project folder.")
        if verify_only and site:
            raise UserError("--verify-only runs nothing, so --site has no effect.", "Give one of both.")
        if verify_only:
            comparison = _verify(project, reference, stages, folder)
        else:
            comparison = _repeat(project, reference, stages, _Place(folder, keep, site or ""), variables)
        if not comparison.holds:
            sys.exit(EXIT_DIFFERS)

    return reproduce


def _verify(project: Path, reference: str | None, stages: tuple[str, ...], folder: Path | None) -> "Comparison":
    from fourfold_ops.reproduction.origin import find_original
    from fourfold_ops.reproduction.verification import verify

    comparison = verify(project, find_original(project, reference, in_place=True), stages)
    _show(comparison, folder)
    return comparison


@dataclass(frozen=True)
class _Place:
    """Where a run is repeated: its folder, whether that is kept, and the site of its steps ("": this machine)."""

    folder: Path | None
    keep: bool
    site: str


def _repeat(project: Path, reference: str | None, stages: tuple[str, ...], where: _Place, variables: str) -> "Comparison":
    from fourfold_ops.reproduction.on_cluster import Site
    from fourfold_ops.reproduction.origin import find_original
    from fourfold_ops.reproduction.record import record
    from fourfold_ops.reproduction.recorded_run import facts_in, open_store
    from fourfold_ops.reproduction.reproduce import Request, reproduce
    from fourfold_ops.reproduction.tolerances import tolerance_of
    from fourfold_ops.reproduction.workspace import STORE

    site = Site.of(project, where.site) if where.site else None
    original = find_original(project, reference)
    place = where.folder or (site.folder(original.name) if site else project / FOLDER / original.name)
    chosen = load_object(variables)(original.facts) if variables and original.facts else {}
    tolerance = tolerance_of(_rules(project))
    comparison, workspace = reproduce(Request(project, original, stages, place, chosen, tolerance, site))
    reports = _show(comparison, place)
    store = open_store(project) if original.run_id else None
    if store is not None:
        is_whole = set(comparison.stages) == set(original.ran or original.stages)
        child = record(store, comparison, facts_in(workspace.root / STORE), reports, is_whole)
        click.echo(f"Recorded in MLflow as run {child}, a child of {original.run_id}")
    if comparison.holds and not where.keep:
        workspace.remove()
    else:
        click.echo(f"The repeated run is in {os.path.relpath(workspace.root)}")
    return comparison


def _show(comparison: "Comparison", folder: Path | None) -> list[Path]:
    """Print the comparison, and write its reports if there is a folder for them; return their paths."""
    from fourfold_ops.reproduction.page import write_reports
    from fourfold_ops.reproduction.text import lines

    for line in lines(comparison):
        click.echo(line)
    reports = write_reports(comparison, folder) if folder else []
    for path in reports:
        click.echo(os.path.relpath(path))
    return reports


def _rules(project: Path) -> Any:
    from kedro.config import MissingConfigException

    from fourfold_ops.cli.catalog import configuration
    from fourfold_ops.reproduction.tolerances import rules

    try:
        return rules(configuration("reproduction", start=project))
    except (KeyError, MissingConfigException):  # the project has no such file
        return ()
