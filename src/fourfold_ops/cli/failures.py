"""Commands that end a failure with one line: what failed, where, and what to do. The traceback goes to the log file."""

import contextlib
import logging
import os
import signal
import sys
from logging.handlers import RotatingFileHandler
from pathlib import Path
from typing import Any

import click
from kedro.utils import find_kedro_project

from fourfold_ops import handover
from fourfold_ops.errors import EXIT_INTERRUPTED, EXIT_TERMINATED, exit_code, location_of, one_line

LOG_FILE = "data/run.log"  # relative to the project


def with_clear_errors(command: click.Command) -> click.Command:
    """Return `command` (e.g. Kedro's `run`) with the same options, whose failures are reported on one last line."""

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
                click.secho("Interrupted. Run the same command to continue.", fg="yellow", err=True)
                sys.exit(EXIT_INTERRUPTED)
            except Exception as error:
                _report(error)
                sys.exit(exit_code(error))

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
        handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s"))
        logging.getLogger().addHandler(handler)
    return path


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
    click.secho(f"Failed{location}: {one_line(error)} [details: {os.path.relpath(log_file)}]", fg="red", err=True)


def _stop(number: int, frame: Any) -> None:
    # An exception instead of the default action: clean-up runs, and the MLflow run is not left in status "RUNNING".
    raise SystemExit(EXIT_TERMINATED)
