"""Options that this platform adds to `kedro run`."""

import os

import click

from fourfold_ops import handover


def with_fresh(command: click.Command, variable: str) -> click.Command:
    """Return `command` (e.g. Kedro's `run`) with the option `--fresh`.

    Args:
        command: A Click command.
        variable: An environment variable: how many superseded results of each folder to keep. `--fresh` sets it to 0, in this
            process and in the steps that a runner starts elsewhere.
    """

    def set_variable(context: click.Context, parameter: click.Parameter, value: bool) -> None:
        if value:
            os.environ[variable] = "0"
            inherited = os.environ.get(handover.INHERITED)
            os.environ[handover.INHERITED] = f"{inherited},{variable}" if inherited else variable

    option = click.Option(
        ["--fresh"],
        is_flag=True,
        expose_value=False,
        callback=set_variable,
        help="Delete results of other settings, data or code instead of keeping them aside.",
    )
    return click.Command(name=command.name, callback=command.callback, params=[*command.params, option], help=command.help)
