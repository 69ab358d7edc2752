"""Finds the outcomes of a table that met its expectations, so that an equal table is not checked again.

Great Expectations takes seconds to load and longer to check, also when nothing has changed. Outcomes are reused if table,
expectations, the version of Great Expectations and this package are the same, and if all expectations were met.
"""

import hashlib
import json
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pandas as pd

from fourfold_ops.atomic import digest_of
from fourfold_ops.quality.record import record_path

PACKAGE = Path(__file__).parent


def digest_of_check(rows: Any, expectations: list[dict[str, Any]], key: str | None) -> str:
    """Return the hex SHA-256 of all that decides the outcomes of a check.

    Args:
        rows: The table: a DataFrame or a list of dictionaries.
        expectations: As in the catalog.
        key: The column that identifies a row in messages.
    """
    digest = hashlib.sha256(version("great-expectations").encode())
    digest.update(digest_of(list(PACKAGE.glob("*.py")), PACKAGE).encode())
    digest.update(json.dumps([expectations, key], sort_keys=True, default=str).encode())
    if isinstance(rows, pd.DataFrame):
        digest.update(json.dumps(list(rows.columns)).encode())
    for row in rows.itertuples(index=False, name=None) if isinstance(rows, pd.DataFrame) else rows:
        digest.update(json.dumps(row, default=repr).encode() + b"\n")
    return digest.hexdigest()


def known_outcomes(path: Path, suite: str, digest: str) -> list[dict[str, Any]] | None:
    """Return the outcomes of an equal check whose expectations were all met; None if there is none."""
    try:
        record = json.loads(record_path(path, suite).read_text(encoding="utf-8"))
        outcomes: list[dict[str, Any]] = record["outcomes"]
        is_usable = record["digest"] == digest and all(outcome["success"] is True for outcome in outcomes)
    except (OSError, ValueError, TypeError, KeyError):  # absent, or damaged: check again
        return None
    return outcomes if is_usable else None
