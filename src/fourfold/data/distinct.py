"""Sets of texts on disk: duplicates among any number of samples, found within a bound of memory.

A set of Python strings needs about 150 bytes an entry, 2 GB for the keys of 12 million samples. Here 16 bytes of a hash of each
text are in an SQLite table, of which only a cache is in memory.
"""

import hashlib
import os
import sqlite3
import tempfile
from collections.abc import Sequence
from pathlib import Path

from fourfold.storage import PARTIAL_MARK

CACHE_KIB = 32 * 1024  # memory of one set at most; the rest is on disk, about 30 bytes an entry
DIGEST_BYTES = 16  # of 12 million texts, two have the same hash with a probability of 2e-25


class TextSet:
    """A set of texts in a temporary file. The file has no name, so nothing is left of it, however the process ends.

    Args:
        folder: where the file is; it must exist.
    """

    def __init__(self, folder: Path) -> None:
        descriptor, name = tempfile.mkstemp(".sqlite", PARTIAL_MARK, folder)
        os.close(descriptor)
        self._database = sqlite3.connect(name, isolation_level=None)
        # The file is worth nothing after a crash: no journal, no flush
        pragmas = (f"cache_size = -{CACHE_KIB}", "journal_mode = OFF", "synchronous = OFF", "locking_mode = EXCLUSIVE")
        table = "CREATE TABLE seen (digest BLOB PRIMARY KEY) WITHOUT ROWID"
        try:
            for statement in (*(f"PRAGMA {pragma}" for pragma in pragmas), table, "BEGIN"):
                self._database.execute(statement)
        except sqlite3.Error:  # e.g. a full disk
            self.close()
            raise
        finally:
            Path(name).unlink()

    def close(self) -> None:
        """Give the space on the disk back."""
        self._database.close()

    def add(self, text: str) -> bool:
        """Add a text; return whether it is new."""
        added = self._database.execute("INSERT OR IGNORE INTO seen VALUES (?)", (_digest(text),))
        return added.rowcount == 1

    def __contains__(self, text: str) -> bool:
        return self._database.execute("SELECT 1 FROM seen WHERE digest = ?", (_digest(text),)).fetchone() is not None

    def repeated(self, texts: Sequence[str]) -> list[str]:
        """Add texts; return those that were there already, or are repeated, in order."""
        return [text for text in texts if not self.add(text)]


def _digest(text: str) -> bytes:
    return hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=DIGEST_BYTES).digest()
