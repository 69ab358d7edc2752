"""The latest outcome of every suite in a folder: a JSON file and a page each, and an index of all pages.

The pages are our own: the data docs of Great Expectations load an image with an id, and scripts of several servers.
"""

import json
import logging
from pathlib import Path
from typing import Any

from fourfold_ops.atomic import write_whole
from fourfold_ops.quality.page import index_page, quality_page

logger = logging.getLogger(__name__)
RESULTS = "results"  # folder of the JSON files


def write_record(path: Path, suite: str, digest: str, outcomes: list[dict[str, Any]], num_rows: int) -> None:
    """Record the outcome of a suite, and write its page and the index again; a killed process leaves whole files.

    Args:
        path: Folder of records and pages.
        suite: Name of the suite.
        digest: Of all that decides the outcomes, see `checked.digest_of_check`.
        outcomes: As `run_suite` returns them.
        num_rows: Rows of the table that was checked.
    """
    record = {"suite": suite, "digest": digest, "rows": num_rows, "outcomes": outcomes}
    write_whole(record_path(path, suite), (json.dumps(record, indent=1, sort_keys=True, default=str) + "\n").encode())
    write_whole(page_path(path, suite), quality_page(suite, outcomes, num_rows).encode())
    records = [found for file in sorted((path / RESULTS).glob("*.json")) if (found := _read(file)) is not None]
    write_whole(index(path), index_page(records).encode())


def record_path(path: Path, suite: str) -> Path:
    """Return the file with the latest outcomes of a suite."""
    return path / RESULTS / f"{suite}.json"


def page_path(path: Path, suite: str) -> Path:
    """Return the page of a suite."""
    return path / f"{suite}.html"


def index(path: Path) -> Path:
    """Return the page that lists all suites of a folder."""
    return path / "index.html"


def _read(file: Path) -> dict[str, Any] | None:
    """Return a record; None if it was edited or written by another version: its suite is checked again sooner or later."""
    try:
        record = json.loads(file.read_text(encoding="utf-8"))
        failed = sum(not outcome["success"] for outcome in record["outcomes"])
        return {"suite": str(record["suite"]), "rows": int(record["rows"]), "all": len(record["outcomes"]), "failed": failed}
    except (OSError, ValueError, KeyError, TypeError) as error:
        logger.info("The index of data checks omits %s: it cannot be read (%s).", file, type(error).__name__)
        return None
