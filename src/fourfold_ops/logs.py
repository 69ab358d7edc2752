"""The log file of the project: everything, tracebacks too, wherever in the project a command is started."""

import contextlib
import logging
import os
from logging.handlers import RotatingFileHandler
from pathlib import Path

from kedro.utils import find_kedro_project

from fourfold_ops import handover

LOG_FILE = "data/run.log"


def keep_log_file() -> Path:
    """Add the file to the root logger (once) and return its path.

    It is not in `conf/logging.yml` because a path there starts at the current folder.
    """
    name = os.environ.get(handover.LOG_FILE) or LOG_FILE  # several machines must not rotate one file
    path = (find_kedro_project(Path.cwd()) or Path.cwd()) / name
    logging.raiseExceptions = False  # a full disk must not answer each line with a traceback
    if _handler(path) is None:
        with contextlib.suppress(OSError):  # the run itself will say that it cannot write
            path.parent.mkdir(parents=True, exist_ok=True)
        handler = RotatingFileHandler(path, maxBytes=10_000_000, backupCount=2, encoding="utf-8", delay=True)
        handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s"))
        logging.getLogger().addHandler(handler)
    return path


def log_traceback(error: BaseException) -> Path:
    """Write the traceback of `error` to the log file alone, and return that file's path."""
    path = keep_log_file()
    handler = _handler(path)
    assert handler
    trace = (type(error), error, error.__traceback__)
    handler.handle(logging.LogRecord(__name__, logging.ERROR, __file__, 0, "The run failed.", None, trace))
    return path


def _handler(path: Path) -> logging.Handler | None:
    return next((h for h in logging.getLogger().handlers if getattr(h, "baseFilename", "") == str(path)), None)
