"""Tests wait for no disk: they need not survive a power cut. Processes that are killed lose nothing."""

import contextlib
import os
import sqlite3
from typing import Any

VARIABLE = "FOURFOLD_TEST_SKIP_FLUSH"  # for processes that tests start with `preloaded`


def skip_flushes() -> None:
    """Let `os.fsync` do nothing, and SQLite commit without waiting for the disk."""
    connect = sqlite3.dbapi2.connect

    def connected(*arguments: Any, **options: Any) -> sqlite3.Connection:
        connection = connect(*arguments, **options)
        with contextlib.suppress(sqlite3.Error):  # a damaged file: the test expects the error of its first query
            connection.execute("PRAGMA synchronous = OFF")
        return connection

    sqlite3.connect = sqlite3.dbapi2.connect = connected
    os.fsync = lambda descriptor: None
    os.environ[VARIABLE] = "1"
