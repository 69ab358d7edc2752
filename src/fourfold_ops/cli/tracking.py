"""The command `kedro tracking sync`: sends what was recorded without the tracking server."""

from pathlib import Path

import click

from fourfold_ops.cli.catalog import configuration
from fourfold_ops.cli.failures import with_clear_errors
from fourfold_ops.errors import UserError


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
def tracking() -> None:
    """Runs that were recorded without the tracking server."""


@click.command()
@click.option("--env", "-e", help="A folder of conf/ whose tracking.yml names the server.")
def sync(env: str | None) -> None:
    """Send the runs of `kedro run --offline-tracking` to the tracking server; sent ones stay in data/offline_tracking."""
    from kedro.utils import find_kedro_project

    from fourfold_ops.sending import has_offline_runs, send_offline_runs
    from fourfold_ops.tracking.store import TrackingStore

    project, values = find_kedro_project(Path.cwd()), configuration("tracking", env)
    if project is None or values is None:
        raise UserError(f"{Path.cwd()} is not in a project.", "Change to a project folder.")
    if not has_offline_runs(project):
        click.echo("No run was recorded offline.")
        return
    store = TrackingStore(project, **values)
    if store.is_local:
        raise UserError(f"Runs are sent to a server, and tracking is in {store.uri}.", "Set MLFLOW_TRACKING_URI to the server.")
    sent = send_offline_runs(store)
    click.echo(f"Sent {len(sent)} runs to {store.uri}." if sent else "All runs that were recorded offline have been sent.")


tracking.add_command(with_clear_errors(sync), "sync")
