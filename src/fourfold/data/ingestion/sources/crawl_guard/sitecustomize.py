"""Bounds every download of img2dataset in bytes and seconds. Python loads this module at its start, in all its processes.

img2dataset reads an answer to its end, however long that takes: a server that sends one byte every few seconds, or does not
stop, would hold a shard forever or fill the memory. The limits are environment variables.
"""

import http.client
import os
import time
from typing import Any

MAX_BYTES = int(os.environ.get("FOURFOLD_MAX_BYTES", "50000000"))
MAX_SECONDS = float(os.environ.get("FOURFOLD_MAX_SECONDS", "60"))
CHUNK = 1 << 16  # bytes

_read = http.client.HTTPResponse.read


def read(self: Any, amt: int | None = None) -> bytes:
    """Return the answer as `HTTPResponse.read` does; raises OSError if it is too long, TimeoutError if it is too slow."""
    if amt is not None:
        return _read(self, amt)
    end, parts, size = time.monotonic() + MAX_SECONDS, [], 0
    while part := self.read1(CHUNK):
        parts.append(part)
        size += len(part)
        if size > MAX_BYTES:
            raise OSError(f"more than {MAX_BYTES} bytes")
        if time.monotonic() > end:
            raise TimeoutError(f"more than {MAX_SECONDS:g} seconds")
    return b"".join(parts)


http.client.HTTPResponse.read = read  # type: ignore[method-assign]
