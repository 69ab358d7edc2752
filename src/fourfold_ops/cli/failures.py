"""Commands that end a failure with one line: what failed, where, and what to do. The traceback goes to the log file."""

import contextlib
import logging
import os
import signal
import sys
from logging.handlers import RotatingFileHandler
from pathlib import Path
from typing import Any, NoReturn

import click
from kedro.utils import find_kedro_project

from fourfold_ops import handover
from fourfold_ops.cli.signals import Signals, Stopped
from fourfold_ops.cli.terminal import WithoutTraceback
from fourfold_ops.errors import EXIT_INTERRUPTED, EXIT_TRY_AGAIN, UserError, exit_code, location_of, one_line
from fourfold_ops.secrets import Redacting, redact
from fourfold_ops.suggestions import did_you_mean

LOG_FILE = "data/run.log"  # relative to the project
NOT_A_PARAMETER = "must contain a key and a value separated by `=`"  # Kedro's words about a part of --params


def with_clear_errors(command: click.Command) -> click.Command:
    """Return `command` (e.g. Kedro's `run`) with the same options, whose failures are reported on one last line."""

    class ClearCommand(click.Command):
        def make_context(self, *arguments: Any, **settings: Any) -> click.Context:
            """Parse the options; Kedro's error about a comma in a value of --params also says what to do."""
            try:
                return super().make_context(*arguments, **settings)
            except click.UsageError as error:
                if NOT_A_PARAMETER not in error.message:
                    raise
                remedy = "Commas separate parameters: set a value that has one in conf/local/parameters.yml."
                raise click.UsageError(f"{error.message} {remedy}", error.ctx) from None

        def invoke(self, context: click.Context) -> Any:
            """Run the command; on an exception log the traceback, print one line and exit with `exit_code`."""
            keep_log_file()
            signals = Signals()
            signals.install()
            try:
                _check_environment(context.params)
                return super().invoke(context)
            except Stopped:
                _end(signal.SIGTERM)
            except KeyboardInterrupt:
                _end(signal.SIGINT)
            except (click.ClickException, click.exceptions.Exit, click.Abort):
                raise
            except Exception as error:
                # A library may lose the exception of a signal: OmegaConf fails while it restores a list that is not complete,
                # torch reports that an argument has no length. What is said on purpose, e.g. what Ctrl-C left, stays.
                if signals.received and not isinstance(error, UserError):
                    log_traceback(error)
                    _end(signals.received[-1])
                _report(error)
                sys.exit(exit_code(error))
            finally:
                signals.end()

    return ClearCommand(name=command.name, callback=command.callback, params=command.params, help=command.help)


def keep_log_file() -> Path:
    """Add the log file of the project to the root logger (once) and return its path.

    The file is not configured in `conf/logging.yml` because a path there is relative to the current folder.
    """
    name = os.environ.get(handover.LOG_FILE) or LOG_FILE  # one file per step: several machines must not rotate the same file
    path = (find_kedro_project(Path.cwd()) or Path.cwd()) / name
    logging.raiseExceptions = False  # on a full disk, logging would print a traceback for each line
    if _handler(path) is None:
        with contextlib.suppress(OSError):  # the run itself reports that it cannot write
            path.parent.mkdir(parents=True, exist_ok=True)
        handler = RotatingFileHandler(path, maxBytes=10_000_000, backupCount=2, encoding="utf-8", delay=True)
        handler.setFormatter(Redacting(logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s")))
        logging.getLogger().addHandler(handler)
        _keep_tracebacks_off_the_terminal()
    return path


def _keep_tracebacks_off_the_terminal() -> None:
    """Leave tracebacks to the log file. conf/logging.yml cannot say this: Kedro allows no class there."""
    for handler in logging.getLogger().handlers:
        if type(handler) is logging.StreamHandler and not isinstance(handler.formatter, WithoutTraceback):
            handler.setFormatter(WithoutTraceback(Redacting(handler.formatter or logging.Formatter())))
        elif not isinstance(handler.formatter, Redacting | WithoutTraceback):  # of Kedro's own configuration, for example
            handler.setFormatter(Redacting(handler.formatter or logging.Formatter("%(message)s")))


def log_traceback(error: BaseException) -> Path:
    """Write the traceback of `error` to the log file, not to the terminal; return the path of the file."""
    path = keep_log_file()
    handler = _handler(path)
    assert handler
    trace = (type(error), error, error.__traceback__)
    handler.handle(logging.LogRecord(__name__, logging.ERROR, __file__, 0, "The run failed.", None, trace))
    return path


def _handler(path: Path) -> logging.Handler | None:
    return next((h for h in logging.getLogger().handlers if getattr(h, "baseFilename", "") == str(path)), None)


def _report(error: Exception) -> None:
    log_file = log_traceback(error)
    location = f" in {location}" if (location := location_of(error)) else ""
    click.secho(f"Failed{location}: {redact(one_line(error))} [details: {os.path.relpath(log_file)}]", fg="red", err=True)


def _end(number: int) -> NoReturn:
    """End the process after SIGTERM or Ctrl-C."""
    if number == signal.SIGTERM:
        click.secho("Stopped by SIGTERM. Run the same command to continue.", fg="yellow", err=True)
        sys.exit(EXIT_TRY_AGAIN)
    click.secho("Interrupted. Run the same command to continue.", fg="yellow", err=True)
    sys.exit(EXIT_INTERRUPTED)


def _check_environment(options: dict[str, Any]) -> None:
    """Raise UserError if `--env` names no folder of conf/: Kedro would not list those that exist."""
    project, name = find_kedro_project(Path.cwd()), options.get("env")
    if project is None or not name or options.get("conf_source") or (project / "conf" / name).is_dir():
        return
    allowed = sorted(path.name for path in (project / "conf").glob("*/"))
    raise UserError(
        f"There is no environment {name!r}.{did_you_mean(name, allowed)}", f"Choose a folder of conf/: {', '.join(allowed)}."
    )
