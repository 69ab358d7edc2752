"""Source files that were touched: names and sizes are equal, times of modification are not, so the content may differ.

For each of the newest pieces of work a file keeps the versions of the streams that it was made from, on this machine only.
"""

import logging
from collections.abc import Callable, Sequence
from pathlib import Path

from pydantic import TypeAdapter, ValidationError

from fourfold.data.ingestion.sources import SampleStream
from fourfold.storage import read_json, write_json

logger = logging.getLogger(__name__)
NAME = "versions-{}.json"
KEPT = 10  # files; each has a few hundred bytes. More than results are usually kept aside, which may come back
VERSIONS = TypeAdapter(dict[str, dict[str, str]])
MADE_FROM, WARNED_OF = "made_from", "warned_of"  # versions by stream


def resume_untouched(streams: Sequence[SampleStream], work: str, folder: Path, clear: Callable[[], None]) -> None:
    """Call `clear`, which removes what an interrupted run made, if files were touched since; then record their versions.

    Args:
        streams: what is read.
        work: the digest of the fingerprint of the work.
        folder: where versions are kept.
        clear: removes the results of the work; called too if nothing is known of the files that they were made from.
    """
    if not (versions := _versions(streams)):
        return
    path = _path(folder, work)
    known = _known(path).get(MADE_FROM)
    if known and known != versions:
        logger.warning("Files of the source were modified since the interrupted ingestion. Ingesting again.")
    if known != versions:
        clear()
    write_json(path, {MADE_FROM: versions})
    newest = sorted(folder.glob(NAME.format("*")), key=lambda one: one.stat().st_mtime_ns, reverse=True)
    for old in newest[KEPT:]:
        old.unlink(missing_ok=True)


def warn_of_touched_files(streams: Sequence[SampleStream], work: str, folder: Path) -> None:
    """Log a warning, once for each change, if files were touched since they were ingested."""
    path, versions = _path(folder, work), _versions(streams)
    known = _known(path)
    made_from, warned_of = known.get(MADE_FROM, {}), known.get(WARNED_OF, {})
    touched = [name for name, version in versions.items() if version not in (made_from.get(name, version), warned_of.get(name))]
    for name in touched:
        logger.warning(
            "Files of stream %r were modified since they were ingested; names and sizes are equal, so the samples are used "
            "again. Set digest: content for the source to compare every byte.",
            name,
        )
    if touched:
        write_json(path, {MADE_FROM: made_from, WARNED_OF: versions})


def _versions(streams: Sequence[SampleStream]) -> dict[str, str]:
    return {stream.name: stream.version for stream in streams if stream.version}


def _known(path: Path) -> dict[str, dict[str, str]]:
    """Return what is recorded; nothing if there is no record, or a damaged one."""
    try:
        return VERSIONS.validate_python(read_json(path)) if path.is_file() else {}
    except (ValueError, ValidationError):
        return {}


def _path(folder: Path, work: str) -> Path:
    return folder / NAME.format(work[:16])
