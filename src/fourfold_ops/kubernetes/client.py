"""The one module that talks to Kubernetes: few calls, all of them listed, counted, and repeated while the server is away.

Objects stay the dictionaries that `manifest.py` made and the server sent: typed models would say everything a second time.
"""

import json
import logging
import random
import threading
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Any
from urllib.parse import urlencode

from fourfold_ops.kubernetes.connection import connection_pool, credentials

logger = logging.getLogger(__name__)
Object = dict[str, Any]

# All that the driver ever asks for; `role.py` makes the Role of this table, and `_path` refuses what is not in it.
PERMISSIONS: dict[tuple[str, str], tuple[str, ...]] = {
    ("batch", "jobs"): ("create", "delete", "get", "list", "watch"),
    ("", "services"): ("create", "get"),  # deleted with the Job that owns them
    ("", "pods"): ("list", "watch"),
    ("", "pods/log"): ("get",),
    ("", "events"): ("list", "watch"),
}
GROUPS = {resource: group for group, resource in PERMISSIONS}
METHODS = {"create": "POST", "delete": "DELETE"}  # the others are GET
UNTRUSTED = 495  # as nginx counts: the certificate would not do
TRANSIENT = (408, 425, 429, 500, 502, 503, 504)
CONNECT_SECONDS, READ_SECONDS, WATCH_SECONDS = 10, 30, 120
LOG_SECONDS = 120  # without a line; then the stream is opened again, since some hang for ever (kubernetes-client/python#1546)
FIRST_PATIENCE = 15  # seconds, until the server has answered for the first time
LONGEST_PAUSE = 15.0


class ApiError(Exception):
    """The server said no. `status` is HTTP's code, `message` the server's words."""

    def __init__(self, status: int, verb: str, resource: str, namespace: str, message: str, reason: str = "") -> None:
        super().__init__(f"{verb} {resource} in namespace {namespace!r}: {message} ({status})")
        self.status, self.verb, self.resource, self.namespace = status, verb, resource, namespace
        self.message, self.reason = message, reason


class ApiAwayError(Exception):
    """The server has not answered for as long as it may be away."""

    def __init__(self, server: str, seconds: float, cause: str) -> None:
        super().__init__(f"The API server {server} has not answered for {seconds:.0f} s: {cause}.")
        self.server, self.seconds, self.cause = server, seconds, cause


class Cluster:
    """A namespace of a cluster. Every method may wait and try again for up to `patience` seconds while the server is away."""

    def __init__(self, namespace: str, context: str | None = None, patience: float = 300) -> None:
        self.namespace, self.patience = namespace, patience
        self.calls: Counter[str] = Counter()  # "verb resource" → how often
        self.away_since: float | None = None
        self.closed = threading.Event()  # set: nothing waits or tries again
        self._answered = False
        self._configuration = credentials(context)
        self._pool = connection_pool(self._configuration)

    @property
    def server(self) -> str:
        """The server's address."""
        return str(self._configuration.host)

    def create(self, resource: str, manifest: Object, dry_run: bool = False) -> Object:
        """Create an object and return it as the server has it; raises ApiError with status 409 when it exists."""
        query = {"dryRun": "All"} if dry_run else {}
        return self._json("create", resource, body=manifest, query=query)

    def get(self, resource: str, name: str) -> Object:
        """Return one object; raises ApiError with status 404 when it is not there."""
        return self._json("get", resource, name)

    def all(self, resource: str, selector: str = "") -> list[Object]:
        """Return all objects that have the labels."""
        return self._all_with_version(resource, selector)[0]

    def _all_with_version(self, resource: str, selector: str) -> tuple[list[Object], str]:
        """Return the objects, and the version from which a watch sees what comes after."""
        found = self._json("list", resource, query=_query(labelSelector=selector))
        return found.get("items", []), found["metadata"]["resourceVersion"]

    def delete(self, resource: str, name: str, propagation: str = "Foreground", grace: int | None = None) -> bool:
        """Delete an object and what it owns; returns False when it was gone already."""
        body = {"kind": "DeleteOptions", "apiVersion": "v1", "propagationPolicy": propagation}
        try:
            self._json("delete", resource, name, body=body | ({} if grace is None else {"gracePeriodSeconds": grace}))
        except ApiError as failure:
            if failure.status != 404:
                raise
            return False
        return True

    def watch(self, resource: str, selector: str = "") -> Iterator[tuple[str, Any]]:
        """Yield ("LISTED", all objects) at first and whenever the thread was lost, then (ADDED | MODIFIED | DELETED, object).

        Ends when `closed` is set.
        """
        version = ""
        while not self.closed.is_set():
            if not version:
                items, version = self._all_with_version(resource, selector)
                yield "LISTED", items
            query = _query(
                labelSelector=selector,
                watch="true",
                allowWatchBookmarks="true",
                resourceVersion=version,
                timeoutSeconds=WATCH_SECONDS,
            )
            try:
                for event in self._events(resource, query):
                    kind, found = event["type"], event["object"]
                    if kind == "ERROR":
                        version = ""  # too old (410): list again
                        break
                    version = found["metadata"]["resourceVersion"]
                    if kind != "BOOKMARK":
                        yield kind, found
            except ApiError as failure:
                if failure.status != 410:
                    raise
                version = ""

    def _events(self, resource: str, query: Mapping[str, str]) -> Iterator[Object]:
        response = self._call("watch", resource, query=query, read_seconds=WATCH_SECONDS + 30)
        for line in _lines(response):
            yield json.loads(line)

    def log(self, pod: str, since: str | None = None, follow: bool = True) -> Iterator[bytes]:
        """Yield the lines of a pod's log, each with its time in front, until the stream ends or is cut.

        A last line without a line break is yielded as it is: the caller sees that it may be cut.
        """
        query = _query(timestamps="true", follow="true" if follow else "", sinceTime=since or "")
        yield from _lines(self._call("get", "pods/log", pod, query=query, read_seconds=LOG_SECONDS), keep_ends=True)

    def _json(self, verb: str, resource: str, name: str = "", *, query: Any = None, body: Object | None = None) -> Object:
        with self._call(verb, resource, name, query=query, body=body) as response:
            found: Object = json.loads(response.read())
        return found

    def _call(
        self,
        verb: str,
        resource: str,
        name: str = "",
        *,
        query: Mapping[str, str] | None = None,
        body: Object | None = None,
        read_seconds: float = READ_SECONDS,
    ) -> Any:
        """Return the answer, unread; tries again, longer and longer apart, for as long as the server may be away."""
        from urllib3 import Timeout
        from urllib3.exceptions import HTTPError, SSLError

        url = f"{self.server}{self._path(verb, resource, name)}?{urlencode(query or {})}"
        content = None if body is None else json.dumps(body).encode()
        timeout = Timeout(connect=CONNECT_SECONDS, read=read_seconds)
        pause = 0.25
        while True:
            self.calls[f"{verb} {resource}"] += 1
            try:
                response = self._pool.request(
                    METHODS.get(verb, "GET"),
                    url,
                    body=content,
                    headers=self._headers(),
                    timeout=timeout,
                    preload_content=False,
                    retries=False,
                )
            except HTTPError as error:
                if isinstance(error, SSLError) and "CERTIFICATE_VERIFY_FAILED" in str(error):  # the rest may be a restart
                    raise ApiError(UNTRUSTED, verb, self.server, self.namespace, _in_words(error)) from None
                cause = _in_words(error)
            else:
                if response.status < 400:
                    self._answers()
                    return response
                failure = self._failure(response, verb, resource)
                if failure.status not in TRANSIENT:
                    self._answers()
                    raise failure
                cause = f"{failure.status} {failure.message}"
            self._is_away(cause)
            self.closed.wait(pause * random.uniform(0.8, 1.2))  # noqa: S311, so that drivers do not knock in step
            pause = min(2 * pause, LONGEST_PAUSE)

    def _path(self, verb: str, resource: str, name: str) -> str:
        assert verb in PERMISSIONS[GROUPS[resource], resource], f"{verb} {resource} is not in PERMISSIONS"
        group, (kind, _, sub) = GROUPS[resource], resource.partition("/")
        root = f"/apis/{group}/v1" if group else "/api/v1"
        return "/".join(part for part in (root, "namespaces", self.namespace, kind, name, sub) if part)

    def _headers(self) -> dict[str, str]:
        found = {"Accept": "application/json", "Content-Type": "application/json", "User-Agent": "fourfold-ops"}
        for auth in self._configuration.auth_settings().values():  # asks for a fresh token where the old one has run out
            if auth["in"] == "header" and auth["value"]:
                found[auth["key"]] = auth["value"]
        return found

    def _failure(self, response: Any, verb: str, resource: str) -> ApiError:
        with response:
            text = response.read().decode("utf-8", "replace")
        try:
            status = json.loads(text)
        except ValueError:
            status = {}
        message = str(status.get("message") or text.strip()[:300] or response.reason)
        return ApiError(response.status, verb, resource, self.namespace, message, str(status.get("reason", "")))

    def _answers(self) -> None:
        if self.away_since is not None:
            logger.info("The API server answers again after %.0f s.", time.monotonic() - self.away_since)
        self._answered, self.away_since = True, None

    def _is_away(self, cause: str) -> None:
        now = time.monotonic()
        if self.away_since is None:
            self.away_since = now
            logger.warning("The API server %s does not answer (%s); trying again.", self.server, cause)
        seconds = now - self.away_since
        if self.closed.is_set() or seconds > (self.patience if self._answered else min(FIRST_PATIENCE, self.patience)):
            raise ApiAwayError(self.server, seconds, cause)


def _lines(response: Any, keep_ends: bool = False) -> Iterator[bytes]:
    """Yield the lines of a streamed answer; ends quietly where the stream is cut, since the caller can take it up again."""
    from urllib3.exceptions import HTTPError

    rest = b""
    try:
        while piece := response.read1(65536):
            *whole, rest = (rest + piece).split(b"\n")
            yield from (line + b"\n" if keep_ends else line for line in whole)
    except (HTTPError, OSError, ValueError) as error:
        logger.debug("A stream was cut: %s", error)
    finally:
        response.close()
        response.release_conn()
    if rest and keep_ends:
        yield rest


def _query(**values: Any) -> dict[str, str]:
    return {name: str(value) for name, value in values.items() if value}


def _in_words(error: Exception) -> str:
    reason = getattr(error, "reason", None) or error
    text = str(reason).rpartition(": ")[2] if ": " in str(reason) else str(reason)
    return text or type(error).__name__
