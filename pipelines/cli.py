"""The project's commands: Kedro's own, with failures in one clear line."""

import click
from kedro.framework.cli.project import run as kedro_run

from fourfold_ops.failures import with_clear_errors


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
def cli() -> None:
    """Commands of this project."""


cli.add_command(with_clear_errors(kedro_run), "run")
