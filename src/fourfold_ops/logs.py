"""The log file of the project: everything, tracebacks too, wherever in the project a command is started."""

import logging
from logging.handlers import RotatingFileHandler
from pathlib import Path

from kedro.utils import find_kedro_project

LOG_FILE = "data/run.log"


def keep_log_file() -> Path:
    """Add the file to the root logger (once) and return its path.

    It is not in `conf/logging.yml` because a path there starts at the current folder.
    """
    path = (find_kedro_project(Path.cwd()) or Path.cwd()) / LOG_FILE
    root = logging.getLogger()
    if not any(getattr(handler, "baseFilename", "") == str(path) for handler in root.handlers):
        path.parent.mkdir(parents=True, exist_ok=True)
        handler = RotatingFileHandler(path, maxBytes=10_000_000, backupCount=2, encoding="utf-8", delay=True)
        handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s"))
        root.addHandler(handler)
    return path
