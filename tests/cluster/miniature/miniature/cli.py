"""Commands of the miniature project: run, k8s and submit."""

import click
from kedro.framework.cli.project import run

from fourfold_ops.cli.failures import with_clear_errors
from fourfold_ops.kubernetes.cli.commands import add_commands, with_kubernetes


@click.group()
def cli():
    pass


cli.add_command(with_clear_errors(with_kubernetes(run)), "run")
add_commands(cli, run)
