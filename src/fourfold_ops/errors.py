"""Errors that end a command: what the user can correct, the message on one line, and the exit code."""

import errno
import re
from typing import Any

EXIT_FAILED = 1
EXIT_USAGE = 2  # Click's own code for an option that does not exist
EXIT_DIFFERS = 65  # EX_DATAERR of sysexits.h: `kedro reproduce` found results that are not as recorded
EXIT_BUSY = 69  # EX_UNAVAILABLE of sysexits.h: another run works on data/; nothing was changed
EXIT_NOT_RECORDED = 73  # EX_CANTCREAT of sysexits.h: the results are complete, but dvc.lock does not name them
EXIT_TRY_AGAIN = 75  # EX_TEMPFAIL of sysexits.h: progress is saved, the same command continues (SIGTERM, cluster unreachable)
EXIT_REFUSED = 77  # EX_NOPERM of sysexits.h: the gate of a promotion refused; nothing was changed
EXIT_CONFIGURATION = 78  # EX_CONFIG of sysexits.h: the same command would fail again, so a retry is pointless
EXIT_INTERRUPTED = 130  # what a shell reports for Ctrl-C ...
EXIT_TERMINATED = 143  # ... and for SIGTERM
BAD_CONFIGURATION = (EXIT_USAGE, EXIT_CONFIGURATION)
STOPPED = (EXIT_TRY_AGAIN, EXIT_TERMINATED)  # stopped by SIGTERM, after saving or immediately

# Errors of other libraries that the user corrects in the configuration. By name: importing the libraries costs seconds.
CONFIGURATION_ERRORS = {
    "kedro.config.abstract_config.MissingConfigException",
    "pydantic_core._pydantic_core.ValidationError",
}
# What to do about errors of the operating system, by number.
OS_REMEDIES = {
    errno.ENOSPC: "Free some space; the next run continues.",
    errno.EDQUOT: "Free some space or raise the quota; the next run continues.",
    errno.EROFS: "Make the file system writable.",
    errno.EACCES: "Give this user the permission; the next run continues.",
    errno.EPERM: "Give this user the permission; the next run continues.",
    errno.EMFILE: "Raise the limit of open files (ulimit -n); the next run continues.",
}

SQLITE_ERROR = re.compile(r"\(sqlite3\.\w+\) ([^\n\[]+)")  # in the text of SQLAlchemy
# What to do about errors of SQLite, by a part of their text: the record of runs (MLflow) is such a file.
SQLITE_REMEDIES = {
    "disk is full": OS_REMEDIES[errno.ENOSPC],
    "disk I/O error": "Check the disk; the next run continues.",
    "readonly database": "Give this user write permission for data/mlflow.db; the next run continues.",
    "unable to open": "Give this user write permission for data/; the next run continues.",
    "is locked": "Another program uses data/mlflow.db. When it has ended, the next run continues.",
    "malformed": "Restore data/mlflow.db from a copy, or rename it: the next run creates a new one.",
    "not a database": "Restore data/mlflow.db from a copy, or rename it: the next run creates a new one.",
}


class UserError(Exception):
    """An error that the user can correct; `remedy` describes how."""

    def __init__(self, message: str, remedy: str = "") -> None:
        super().__init__(message)
        self.remedy = remedy


def one_line(error: BaseException) -> str:
    """Return the most specific message of a chain of exceptions on one line, with its remedy.

    Kedro wraps an error of a dataset in a DatasetError that repeats the whole configuration; its cause is shorter and clearer.
    """
    specific = error
    while type(specific).__name__ == "DatasetError" and specific.__cause__ is not None:
        specific = specific.__cause__
    if isinstance(specific, OSError) and specific.errno is not None:
        return _os_error_line(specific)
    if reason := _sqlite_reason(specific):
        remedy = next((remedy for part, remedy in SQLITE_REMEDIES.items() if part in reason), "")
        return f"The record of runs (MLflow, SQLite): {reason}. {remedy}".rstrip()
    message = " ".join(str(specific).partition("[SQL:")[0].split())  # of SQLAlchemy, the statement helps nobody
    # The text of a KeyError is only the key: show the type too. A ValueError is written for the user.
    if not isinstance(specific, ValueError) and type(specific).__module__ == "builtins":
        message = f"{type(specific).__name__}: {message}"
    return f"{message or type(specific).__name__} {getattr(specific, 'remedy', '')}".rstrip()


def _os_error_line(error: OSError) -> str:
    where = f"{error.filename}: " if error.filename is not None else ""
    remedy = OS_REMEDIES.get(error.errno or 0, "")
    return f"{where}{error.strerror or type(error).__name__}. {remedy}".rstrip()


def _sqlite_reason(error: BaseException) -> str:
    """Return what SQLite reports, directly or through SQLAlchemy and MLflow, which add statements and links; else ""."""
    if type(error).__module__ == "sqlite3":
        return str(error)
    found = None if isinstance(error, UserError) else SQLITE_ERROR.search(str(error))
    return found[1].strip() if found else ""


def exit_code(error: BaseException) -> int:
    """Return the exit code of an error: its attribute `exit_code`, else EXIT_CONFIGURATION or EXIT_FAILED by its type.

    A ValueError without a location was raised before any node ran, by the command or the configuration.
    """
    if isinstance(own := getattr(error, "exit_code", None), int):
        return own
    kinds = {f"{kind.__module__}.{kind.__name__}" for kind in type(error).__mro__}
    is_early = isinstance(error, ValueError) and not location_of(error)
    return EXIT_CONFIGURATION if isinstance(error, UserError) or is_early or kinds & CONFIGURATION_ERRORS else EXIT_FAILED


def set_location(error: BaseException, location: str) -> None:
    """Attach to `error` where it was raised, e.g. "pretraining, node pretrain_model"; a location that is there stays."""
    attributes: Any = error
    if not hasattr(attributes, "location"):
        attributes.location = location


def location_of(error: BaseException) -> str:
    """Return the location that `set_location` attached, "" without one."""
    return str(getattr(error, "location", ""))
