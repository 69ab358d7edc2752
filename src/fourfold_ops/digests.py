"""Digests of single files: `digests.json` beside them records the SHA-256 of each, written with the file.

The format and its rules are those of `fourfold.digests` (this package must not import it); one test checks both.
"""

import hashlib
import json
import logging
from pathlib import Path

from kedro.io import DatasetError

from fourfold_ops.atomic import locked, write_whole

logger = logging.getLogger(__name__)
DIGESTS_FILE = "digests.json"
BEFORE = "~"  # "a~" is the digest of "a" before it is replaced: valid too, should the process be killed meanwhile


def write_recorded(path: Path, content: bytes) -> None:
    """Write a file that is whole or absent, and record its digest; log a line if the old file was damaged."""
    new, before = _sha256(content), None
    if path.is_file():
        found, expected = _sha256(path.read_bytes()), _expected(path)
        if expected and found not in expected:
            logger.warning("%s changed after it was written. Writing it again.", path)
        before = found if found in expected and found != new else None
    _update(path, new, before)
    write_whole(path, content)
    _update(path, new)


def read_checked(path: Path) -> bytes:
    """Return the content of a file that is as it was written.

    Raises:
        DatasetError: the file is missing, not recorded or changed; the message has both digests and the remedy.
    """
    expected = _expected(path)
    if not path.is_file():
        lost = f" (expected SHA-256 {expected[0]}, {DIGESTS_FILE})" if expected else ""
        raise DatasetError(f"{path} does not exist{lost}. Run the stage that writes it first.")
    content = path.read_bytes()
    remedy = "Write it again with `kedro run`, or with the stage that makes it; or restore it with `dvc checkout --force`."
    if not expected:
        raise DatasetError(f"{path} has no digest in {DIGESTS_FILE}, so it cannot be checked. {remedy}")
    if (found := _sha256(content)) not in expected:
        raise DatasetError(
            f"{path} changed after it was written: SHA-256 {found}, expected {expected[0]} ({DIGESTS_FILE}). {remedy}"
        )
    return content


def _sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def _expected(path: Path) -> list[str]:
    """Return the digests that a file may have, the newest first."""
    record = _record(path.parent)
    return [record[key] for key in (path.name, path.name + BEFORE) if key in record]


def _record(folder: Path) -> dict[str, str]:
    """Return the digests of a folder; a damaged record counts as empty, so its files are not accepted."""
    path = folder / DIGESTS_FILE
    if not path.is_file():
        return {}
    try:
        record = json.loads(path.read_bytes())
        if isinstance(record, dict) and all(isinstance(value, str) for value in record.values()):
            return record
    except ValueError:
        pass
    logger.warning("%s is not a table of digests, so the files in its folder must be written again.", path)
    return {}


def _update(path: Path, new: str, before: str | None = None) -> None:
    with locked(path.parent):
        old = _record(path.parent)
        record = {key: value for key, value in old.items() if key != path.name + BEFORE} | {path.name: new}
        if before:
            record[path.name + BEFORE] = before
        if record != old:
            text = json.dumps(record, indent=1, sort_keys=True) + "\n"
            write_whole(path.parent / DIGESTS_FILE, text.encode())
