"""Commands of the miniature project: run, k8s, submit and reproduce."""

import click
from kedro.framework.cli.project import run

from fourfold_ops.cli.failures import with_clear_errors
from fourfold_ops.kubernetes.cli.commands import add_commands, with_kubernetes
from fourfold_ops.reproduction.command import reproduce_command


@click.group()
def cli():
    pass


cli.add_command(with_clear_errors(with_kubernetes(run)), "run")
cli.add_command(with_clear_errors(reproduce_command()), "reproduce")
add_commands(cli, run)
