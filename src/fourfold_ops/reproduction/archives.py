"""Which samples of a tar archive differ: the members of a shard, by the key with which their names start."""

import hashlib
import tarfile
from dataclasses import dataclass
from pathlib import Path
from typing import IO

SHOWN_KEYS = 20  # of one archive; the count has all


@dataclass(frozen=True)
class KeyDifference:
    """Keys of the samples that differ between two archives: the first ones in the order of the original, and the count."""

    keys: tuple[str, ...]
    count: int
    order_differs: bool = False  # the same samples in another order

    def __str__(self) -> str:
        if self.order_differs:
            return "the same samples in another order"
        if not self.count:
            return "equal samples; the archive itself differs"
        more = f" and {self.count - len(self.keys)} more" if self.count > len(self.keys) else ""
        return f"{self.count} {'key' if self.count == 1 else 'keys'}: {', '.join(self.keys)}{more}"


def different_keys(original: IO[bytes], found: Path) -> KeyDifference | None:
    """Compare two tar archives member by member.

    Args:
        original: The archive as it was recorded.
        found: The archive as it is now.

    Returns:
        The keys that differ; None if one of the two is not a readable tar.
    """
    try:
        with tarfile.open(fileobj=original, mode="r:") as archive:
            before = _members(archive)
        with tarfile.open(found, mode="r:") as archive:
            after = _members(archive)
    except (tarfile.TarError, OSError):
        return None
    names = [name for name in [*before, *(name for name in after if name not in before)] if before.get(name) != after.get(name)]
    keys = list(dict.fromkeys(key_of(name) for name in names))
    return KeyDifference(tuple(keys[:SHOWN_KEYS]), len(keys), not keys and list(before) != list(after))


def key_of(member: str) -> str:
    """Return the key of a member: its path up to the first dot of the file name, as readers of shards split it."""
    folder, separator, name = member.rpartition("/")
    return f"{folder}{separator}{name.partition('.')[0]}"


def _members(archive: tarfile.TarFile) -> dict[str, str]:
    """Return the SHA-256 of each member by name; members are read one at a time."""
    found = {}
    for member in archive:
        file = archive.extractfile(member) if member.isfile() else None
        found[member.name] = hashlib.file_digest(file, "sha256").hexdigest() if file else member.type.decode()  # type: ignore[arg-type]
    return found
