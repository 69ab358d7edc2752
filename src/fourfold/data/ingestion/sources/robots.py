"""Rules of web servers about automatic downloads: the robots.txt of each, fetched once, kept on disk, and obeyed (RFC 9309).

The rules are read by `urllib.robotparser`, which knows no wildcards: a rule such as `Disallow: /*.jpg$` blocks no address.
"""

import logging
import sqlite3
import time
import urllib.error
import urllib.request
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass
from functools import lru_cache, partial
from itertools import islice
from pathlib import Path
from urllib.parse import urlsplit
from urllib.robotparser import RobotFileParser

logger = logging.getLogger(__name__)
FORBIDDEN, UNREACHABLE = "robots.txt forbids it", "robots.txt cannot be reached"
MAX_BYTES = 500 * 1024  # of a robots.txt; RFC 9309, section 2.5: parsers read at least so much
CHUNK = 1 << 14
TOO_MANY_REQUESTS = 429
PARSED = 1_000  # servers whose rules are in memory
BATCH = 1_000  # servers between two commits: an interrupted download asks no more than so many again
ABSENT, FOUND, FAILED = "absent", "found", "failed"


@dataclass(frozen=True)
class Asking:
    """How servers are asked.

    Attributes:
        agent: the name under which rules for this program would be.
        timeout: seconds without an answer.
        max_seconds: of one answer.
        threads: servers that are asked at the same time.
    """

    agent: str
    timeout: float
    max_seconds: float
    threads: int


class Robots:
    """The rules of all servers that some addresses name; those of a few are in memory, the rest is in an SQLite file.

    Args:
        path: the file; what an earlier call fetched is still in it.
        asking: how servers are asked.
    """

    def __init__(self, path: Path, asking: Asking) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self._asking = asking
        self._database = sqlite3.connect(path)
        self._database.execute("CREATE TABLE IF NOT EXISTS servers (origin TEXT PRIMARY KEY, status TEXT, rules TEXT)")
        self._rules_of = lru_cache(maxsize=PARSED)(self._read)

    def close(self) -> None:
        """Close the file."""
        self._database.close()

    def fetch(self, addresses: Iterable[str]) -> None:
        """Ask the servers of these addresses that were not asked before."""
        origins = filter(None, map(origin_of, addresses))
        self._database.executemany("INSERT OR IGNORE INTO servers (origin) VALUES (?)", ((one,) for one in origins))
        self._database.commit()
        (total,) = self._database.execute("SELECT COUNT(*) FROM servers WHERE status IS NULL").fetchone()
        if not total:
            return
        logger.info("Reading the robots.txt of %s servers.", f"{total:,}")
        ask = partial(_ask, asking=self._asking)
        with ThreadPoolExecutor(self._asking.threads) as pool:
            while batch := self._waiting():
                found = [(*answer, origin) for origin, answer in zip(batch, pool.map(ask, batch), strict=True)]
                self._database.executemany("UPDATE servers SET status = ?, rules = ? WHERE origin = ?", found)
                self._database.commit()
        self._rules_of.cache_clear()

    def _waiting(self) -> list[str]:
        rows = self._database.execute("SELECT origin FROM servers WHERE status IS NULL ORDER BY origin LIMIT ?", (BATCH,))
        return [origin for (origin,) in rows]

    def refusal(self, address: str) -> str | None:
        """Return why an address may not be downloaded; None if it may, or if it names no server."""
        origin = origin_of(address)
        if origin is None:
            return None
        rules = self._rules_of(origin)
        if rules is None:
            return UNREACHABLE
        return None if rules.can_fetch(self._asking.agent, address) else FORBIDDEN

    def _read(self, origin: str) -> RobotFileParser | None:
        """Return the rules of a server that was asked; None if it did not answer."""
        status, text = self._database.execute("SELECT status, rules FROM servers WHERE origin = ?", (origin,)).fetchone()
        if status == FAILED:
            return None
        rules = RobotFileParser()
        rules.parse((text or "").splitlines())
        return rules


def origin_of(address: str) -> str | None:
    """Return scheme, host and port of an address of the web; None for others."""
    try:
        parts = urlsplit(address)
        port = parts.port
    except ValueError:
        return None
    if parts.scheme not in ("http", "https") or not parts.hostname:
        return None
    host = f"[{parts.hostname}]" if ":" in parts.hostname else parts.hostname
    return f"{parts.scheme}://{host}{f':{port}' if port else ''}"


def _ask(origin: str, asking: Asking) -> tuple[str, str]:
    """Return what a server answers: a status, and the text of its robots.txt.

    As RFC 9309, section 2.3.1: without a robots.txt (status 4xx, endless redirects) everything is allowed, and nothing if the
    server fails or cannot be reached.
    """
    request = urllib.request.Request(f"{origin}/robots.txt", headers={"User-Agent": asking.agent})  # noqa: S310  http, https
    try:
        with closing(_opener().open(request, timeout=asking.timeout)) as answer:
            return FOUND, b"".join(_parts(answer, asking.max_seconds)).decode("utf-8-sig", "replace")
    except urllib.error.HTTPError as error:
        error.close()
        return (FAILED if error.code >= 500 or error.code == TOO_MANY_REQUESTS else ABSENT), ""
    except Exception:  # servers of the web raise anything: bad certificates, broken protocols, names that are no names
        return FAILED, ""


def _parts(answer: "urllib.request._UrlopenRet", max_seconds: float) -> Iterator[bytes]:
    """Yield the start of an answer; raises TimeoutError if it takes too long."""
    end = time.monotonic() + max_seconds
    parts = iter(lambda: answer.read1(CHUNK), b"")
    size = 0
    for part in islice(parts, MAX_BYTES):
        yield part[: MAX_BYTES - size]
        size += len(part)
        if size >= MAX_BYTES:
            return
        if time.monotonic() > end:
            raise TimeoutError(f"more than {max_seconds:g} seconds")


@lru_cache(maxsize=1)
def _opener() -> urllib.request.OpenerDirector:
    """Return an opener for the web alone: no redirect leads to a file of this machine."""
    opener = urllib.request.OpenerDirector()
    for handler in (
        urllib.request.ProxyHandler,
        urllib.request.HTTPHandler,
        urllib.request.HTTPSHandler,
        urllib.request.HTTPDefaultErrorHandler,
        urllib.request.HTTPRedirectHandler,
        urllib.request.HTTPErrorProcessor,
    ):
        opener.add_handler(handler())
    return opener
