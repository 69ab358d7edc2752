"""A failing run ends in one line that says what, where and what to do; the traceback goes to the log file."""

import os
import signal
import sys
from typing import Any

import click

from fourfold_ops.logs import keep_log_file, log_traceback

EXIT_FAILED = 1
EXIT_USAGE = 2  # click's own: an option that does not exist
EXIT_TRY_AGAIN = (
    75  # EX_TEMPFAIL: the cluster was away for too long, or a SIGTERM came and all is saved; the same command goes on
)
EXIT_CONFIGURATION = 78  # EX_CONFIG of sysexits.h: the same command would fail again, so nobody should retry it
EXIT_INTERRUPTED = 130  # what a shell reports for Ctrl-C ...
EXIT_TERMINATED = 143  # ... and for SIGTERM
BAD_CONFIGURATION = (EXIT_USAGE, EXIT_CONFIGURATION)
STOPPED = (EXIT_TRY_AGAIN, EXIT_TERMINATED)  # by SIGTERM, after saving or at once


class UserError(Exception):
    """Something that the user can put right; `remedy` says how."""

    def __init__(self, message: str, remedy: str = "") -> None:
        super().__init__(message)
        self.remedy = remedy


def one_line(error: BaseException) -> str:
    """Return the most telling message of a chain of exceptions, on one line, with its remedy.

    Kedro wraps what a dataset raises in a DatasetError that repeats the whole configuration: the cause says more.
    """
    telling = error
    while type(telling).__name__ == "DatasetError" and telling.__cause__ is not None:
        telling = telling.__cause__
    message = " ".join(str(telling).split())
    if not isinstance(telling, ValueError) and type(telling).__module__ == "builtins":
        message = f"{type(telling).__name__}: {message}"
    return f"{message or type(telling).__name__} {getattr(telling, 'remedy', '')}".rstrip()


def exit_code(error: BaseException) -> int:
    """Return the exit code of a failure: its own `exit_code` if it has one; what the user must put right has one for all."""
    if isinstance(own := getattr(error, "exit_code", None), int):
        return own
    kinds = {f"{kind.__module__}.{kind.__name__}" for kind in type(error).__mro__}
    wrong = {"kedro.config.abstract_config.MissingConfigException", "pydantic_core._pydantic_core.ValidationError"}
    return EXIT_CONFIGURATION if isinstance(error, UserError) or kinds & wrong else EXIT_FAILED


def with_clear_errors(command: click.Command) -> click.Command:
    """Return `command` (e.g. Kedro's own `run`) with the same options, and failures reported in one last line."""

    class ClearCommand(click.Command):
        def invoke(self, context: click.Context) -> Any:
            """Run the command; on an exception log the traceback, print one line and exit with `exit_code`."""
            keep_log_file()
            signal.signal(signal.SIGTERM, _stop)
            try:
                return super().invoke(context)
            except (click.ClickException, click.exceptions.Exit, click.Abort):
                raise
            except KeyboardInterrupt:
                click.secho("Stopped. The same command continues where this one was.", fg="yellow", err=True)
                sys.exit(EXIT_INTERRUPTED)
            except Exception as error:
                _report(error)
                sys.exit(exit_code(error))

    return ClearCommand(name=command.name, callback=command.callback, params=command.params, help=command.help)


def _report(error: Exception) -> None:
    log_file = log_traceback(error)
    place = f" in {place}" if (place := place_of(error)) else ""
    click.secho(f"Failed{place}: {one_line(error)} [details: {os.path.relpath(log_file)}]", fg="red", err=True)


_places: dict[int, str] = {}


def set_place(error: BaseException, place: str) -> None:
    """Remember where `error` was raised, e.g. "pretraining, node pretrain_model"."""
    _places[id(error)] = place


def place_of(error: BaseException) -> str:
    """Return what `set_place` remembered."""
    return _places.get(id(error), "")


def _stop(number: int, frame: Any) -> None:
    raise SystemExit(EXIT_TERMINATED)  # so that clean-up runs and the tracked run is not left "running"
