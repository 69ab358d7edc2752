"""Errors that end a command: what the user can correct, the message on one line, and the exit code."""

from typing import Any

EXIT_FAILED = 1
EXIT_USAGE = 2  # Click's own code for an option that does not exist
EXIT_TRY_AGAIN = 75  # EX_TEMPFAIL of sysexits.h: progress is saved, the same command continues (SIGTERM, cluster unreachable)
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
    message = " ".join(str(specific).split())
    # The text of a KeyError is only the key: show the type too. A ValueError is written for the user.
    if not isinstance(specific, ValueError) and type(specific).__module__ == "builtins":
        message = f"{type(specific).__name__}: {message}"
    return f"{message or type(specific).__name__} {getattr(specific, 'remedy', '')}".rstrip()


def exit_code(error: BaseException) -> int:
    """Return the exit code of an error: its attribute `exit_code`, else EXIT_CONFIGURATION or EXIT_FAILED by its type."""
    if isinstance(own := getattr(error, "exit_code", None), int):
        return own
    kinds = {f"{kind.__module__}.{kind.__name__}" for kind in type(error).__mro__}
    return EXIT_CONFIGURATION if isinstance(error, UserError) or kinds & CONFIGURATION_ERRORS else EXIT_FAILED


def set_location(error: BaseException, location: str) -> None:
    """Attach to `error` where it was raised, e.g. "pretraining, node pretrain_model"; a location that is there stays."""
    attributes: Any = error
    if not hasattr(attributes, "location"):
        attributes.location = location


def location_of(error: BaseException) -> str:
    """Return the location that `set_location` attached, "" without one."""
    return str(getattr(error, "location", ""))
