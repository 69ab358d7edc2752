"""Options that this platform adds to `kedro run`."""

import os
from collections.abc import Callable
from typing import Any

import click

from fourfold_ops import handover
from fourfold_ops.tracking import offline
from fourfold_ops.versioning.remote import PUSH_VARIABLE

LOCAL_RUNNERS = ("SequentialRunner", "ThreadRunner", "ParallelRunner")


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
    return _with(command, option)


def with_push(command: click.Command) -> click.Command:
    """Return `command` (e.g. Kedro's `run`) with the option `--push`, which `VersioningHook` obeys."""

    def set_variable(context: click.Context, parameter: click.Parameter, value: bool) -> None:
        if value:
            os.environ[PUSH_VARIABLE] = "1"

    text = "Push the results to the default DVC remote when they are recorded."
    return _with(command, click.Option(["--push"], is_flag=True, expose_value=False, callback=set_variable, help=text))


def with_offline_tracking(command: click.Command) -> click.Command:
    """Return `command` (e.g. Kedro's `run`) with the option `--offline-tracking`, which `TrackingStore` obeys."""
    inner: Callable[..., Any] = command.callback or (lambda **options: None)

    def callback(offline_tracking: bool, **options: Any) -> Any:
        runner = str(options.get("runner") or "").rpartition(".")[2]
        if offline_tracking and runner not in ("", *LOCAL_RUNNERS):
            raise click.UsageError(
                f"--offline-tracking records on this machine, but {runner} runs steps on others. Use one of both."
            )
        if offline_tracking:
            offline.request()
        return inner(**options)

    text = "Record without the tracking server; the next run that reaches it sends the record, or `kedro tracking sync`."
    option = click.Option(["--offline-tracking"], is_flag=True, help=text)
    return click.Command(name=command.name, callback=callback, params=[*command.params, option], help=command.help)


def _with(command: click.Command, option: click.Option) -> click.Command:
    return click.Command(name=command.name, callback=command.callback, params=[*command.params, option], help=command.help)
