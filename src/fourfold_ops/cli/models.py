"""The commands `kedro models list|compare|promote|rollback`: which version of the registered model is used, and why."""

import json
import os
import sys
from dataclasses import asdict, dataclass
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from fourfold_ops.cli.catalog import configuration
from fourfold_ops.cli.failures import with_clear_errors
from fourfold_ops.errors import EXIT_REFUSED, UserError

if TYPE_CHECKING:
    from fourfold_ops.registry.evidence import Evidence
    from fourfold_ops.registry.gate import Finding, Gate
    from fourfold_ops.registry.history import History
    from fourfold_ops.registry.versions import ModelVersions, Version

MODEL_TYPE = "RegisteredModelDataset"  # last part of the `type` of a catalog entry that registers a model
GATE = "promotion"
TRIVIAL = "trivial"  # as the reference of a comparison

env_option = click.option("--env", "-e", help="A folder of conf/ whose catalog and promotion.yml count.")
name_option = click.option("--name", help="The registered model. [default: that of the catalog]")
json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON instead of a table.")
reason_option = click.option("--reason", default="", help="Why; kept in the history.")


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
def models() -> None:
    """Show the versions of the registered model and choose the champion."""


@dataclass(frozen=True)
class Registry:
    """The registered model of a project, its gate, and the suites of its data."""

    project: Path
    env: str | None
    versions: "ModelVersions"
    suites: dict[str, tuple[str, ...]]  # data set → suites of expectations

    @classmethod
    def open(cls, env: str | None, name: str | None) -> "Registry":
        """Open the registry of the project in the current folder; raises UserError if there is none or no such model."""
        from kedro.utils import find_kedro_project

        from fourfold_ops.registry.versions import ModelVersions
        from fourfold_ops.tracking.store import TrackingStore

        project, catalog = find_kedro_project(Path.cwd()), configuration("catalog", env)
        tracking = configuration("tracking", env)
        if project is None or catalog is None or tracking is None:
            raise UserError(f"{Path.cwd()} is not in a project, so there is no registry.", "Change to a project folder.")
        entries = {key: entry for key, entry in catalog.items() if isinstance(entry, dict)}
        registered = [e["name"] for e in entries.values() if str(e.get("type", "")).rpartition(".")[2] == MODEL_TYPE]
        os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")
        store = TrackingStore(project, **tracking)
        return cls(project, env, ModelVersions(store.client, name or _only(registered)), _suites(entries))

    def gate(self) -> "Gate":
        """Return the gate of the environment."""
        from kedro.config import MissingConfigException

        from fourfold_ops.registry.gate import read_gate

        try:
            values = configuration(GATE, self.env) or {}
        except (MissingConfigException, KeyError):
            values = {}
        where = f"conf/{self.env or 'base'}/{GATE}.yml"
        if not values:
            raise UserError(f"There is no {where}.", "Write one; docs/guides/promote.md describes it.")
        return read_gate(values, where)

    def elsewhere(self, uri: str) -> "Registry":
        """Return the same model in the registry of another server."""
        from fourfold_ops.registry.transfer import open_registry

        return Registry(self.project, self.env, open_registry(uri, self.versions.name), self.suites)

    def copy_of(self, other: "Registry", version: "Version") -> str:
        """Copy a version of another registry into this one; return its number."""
        from fourfold_ops.registry.transfer import copy_version

        return copy_version(other.versions, version, self.versions)

    def evidence(self, text: str) -> "Evidence":
        """Return what a version is judged by; raises UserError if it has nothing."""
        version = self.versions.get(text)
        if (found := self.versions.evidence(version)) is None:
            raise UserError(
                f"Version {version.number} of {self.versions.name!r} has no replicates, so it cannot be compared.",
                "Run `kedro run --pipelines=evaluation` with this model.",
            )
        return found

    def history(self) -> "History":
        """Return the history of the model, once it is known to exist."""
        from fourfold_ops.registry.history import History

        _ = self.versions.aliases
        return History(self.versions.client, self.versions.name)


def _only(registered: list[str]) -> str:
    if len(registered) == 1:
        return registered[0]
    raise UserError(
        f"The catalog registers {len(registered)} models: {', '.join(registered) or 'none'}.", "Choose one with --name."
    )


def _suites(entries: dict[str, Any]) -> dict[str, tuple[str, ...]]:
    options = {key: (entry.get("validator") or {}).get("options") or {} for key, entry in entries.items()}
    return {
        key: tuple(str(one["suite"]) for one in (found, *found.get("also", ())))
        for key, found in options.items()
        if "suite" in found
    }


@models.command(name="list")
@env_option
@name_option
@click.option("--limit", default=20, show_default=True, type=click.IntRange(1), help="Number of versions at most.")
@json_option
def list_versions(env: str | None, name: str | None, limit: int, as_json: bool) -> None:
    """List the versions of the model, newest first, with their aliases, origin and marks; then the promotions."""
    registry = Registry.open(env, name)
    found = list(islice(registry.versions.all(), limit))
    entries = registry.history().entries()
    if as_json:
        rows = [
            {"version": v.number, "created": v.created.isoformat(), "aliases": v.aliases, "marks": v.marks, "run": v.run_id}
            | {"commit": v.facts.get("git.commit", ""), "tags": v.tags}
            for v in found
        ]
        click.echo(json.dumps({"model": registry.versions.name, "versions": rows, "history": [asdict(e) for e in entries]}))
        return
    click.secho(registry.versions.name, bold=True)
    _table(("version", "alias", "created", "commit", "marks"), [_row(version) for version in found])
    if entries:
        click.echo("\nPromotions, newest first:")
        for entry in reversed(entries):
            click.echo(f"  {entry.text}")


def _row(version: "Version") -> tuple[str, ...]:
    created = version.created.astimezone().strftime("%Y-%m-%d %H:%M")
    commit = version.facts.get("git.commit", "")[:10] or "unknown"
    return version.number, ", ".join(version.aliases), created, commit, ", ".join(version.marks)


@models.command()
@click.argument("version", default="candidate")
@click.argument("reference", default="champion")
@env_option
@name_option
@json_option
def compare(version: str, reference: str, env: str | None, name: str | None, as_json: bool) -> None:
    """Compare the metrics of VERSION with those of REFERENCE: better, worse, or within the interval.

    By default the candidate with the champion; REFERENCE may be `trivial`, the trivial answers of VERSION's evaluation.
    """
    from fourfold_ops.registry.gate import comparison

    registry = Registry.open(env, name)
    ours = registry.evidence(version)
    rows = comparison(registry.gate(), ours, None if reference == TRIVIAL else registry.evidence(reference))
    if as_json:
        found = [{"metric": m, "problem": g} if isinstance(g, str) else asdict(g) | {"verdict": g.verdict} for m, g in rows]
        click.echo(json.dumps(found))
        return
    head = ("metric", reference, version, "gain", "verdict")
    cells: list[tuple[str, ...]] = [
        (m, "", "", "", f"not comparable: {g}")
        if isinstance(g, str)
        else (m, f"{g.reference:.4g}", f"{g.value:.4g}", f"{g.low:+.4g} to {g.high:+.4g}", g.verdict)
        for m, g in rows
    ]
    _table(head, cells)


@models.command()
@click.argument("version")
@env_option
@name_option
@click.option("--force", is_flag=True, help="Promote even if the gate refuses; needs --reason.")
@reason_option
@click.option("--to", metavar="URI", help="Another MLflow server: its champion is compared with, and VERSION is copied there.")
@json_option
def promote(version: str, env: str | None, name: str | None, to: str | None, **options: Any) -> None:
    """Make VERSION (a number, or an alias such as `candidate`) the champion if it passes the gate.

    The gate is conf/base/promotion.yml: it compares the version with the champion on the same test samples, or with the trivial
    answers if there is no champion. The exit code is 77 if it refuses.
    """
    from fourfold_ops.registry.promotion import Request, decide
    from fourfold_ops.registry.promotion import promote as move

    force, reason, as_json = options["force"], options["reason"].strip(), options["as_json"]
    if force and not reason:
        raise click.UsageError('--force needs --reason "...": it is kept in the history.')
    registry = Registry.open(env, name)
    request = Request(registry.project, registry.gate(), registry.suites, force, reason)
    target = registry.elsewhere(to) if to else registry
    history = target.history()
    decision = decide(target.versions, history, version, request, registry.versions)
    allowed = decision.passed or force
    number = target.copy_of(registry, decision.version) if to and allowed else ""
    entry = move(target.versions, history, decision, request, number) if allowed else None
    if as_json:
        found = {"promoted": allowed, "passed": decision.passed, "findings": [asdict(f) for f in decision.findings]}
        click.echo(json.dumps(found | {"entry": asdict(entry) if entry else None}))
    else:
        _print_findings(decision.findings)
        title = f"{registry.versions.name}, version {number or decision.version.number}{f' of {to}' if to else ''},"
        if entry is None:
            click.secho(f"Refused: {title} does not become champion. Nothing was changed.", fg="red", err=True)
        else:
            click.secho(f"{title} is champion. {entry.text}", fg="green")
    if not allowed:
        sys.exit(EXIT_REFUSED)


@models.command()
@env_option
@name_option
@reason_option
def rollback(env: str | None, name: str | None, reason: str) -> None:
    """Make the version with the alias `previous` champion again."""
    from fourfold_ops.registry.promotion import rollback as move

    registry = Registry.open(env, name)
    entry = move(registry.versions, registry.history(), registry.project, reason.strip())
    click.secho(f"{registry.versions.name}, version {entry.to_version}, is champion. {entry.text}", fg="green")


def _print_findings(findings: list["Finding"]) -> None:
    rows: list[tuple[str, ...]] = [("passed" if f.passed else "FAILED", f.name, f.required, f.found) for f in findings]
    _table(("", "condition", "required", "found"), rows)


def _table(head: tuple[str, ...], rows: list[tuple[str, ...]]) -> None:
    """Print columns as wide as their longest cell, except for the last one."""
    widths = [max(len(row[i]) for row in [head, *rows]) for i in range(len(head) - 1)]
    for row in [head, *rows]:
        cells = [cell.ljust(width) for cell, width in zip(row, widths, strict=False)]
        click.echo("  ".join([*cells, row[-1]]).rstrip())


def add_models(cli: click.Group) -> None:
    """Add the group `models` to a project's commands."""
    for name, command in list(models.commands.items()):
        models.commands[name] = with_clear_errors(command)
    cli.add_command(models)
