"""Client of the Kubernetes API server: the only module that makes calls to it.

The `kubernetes` package only finds credentials and makes the connection pool (`connection`). The calls are made here
with urllib3, for three reasons:

- Objects stay plain dictionaries, as the manifests are built and as the server sends them. Typed models would repeat
  the schema of every object.
- `PERMISSIONS` lists every call, so that the Role of k8s/base is exact; `Cluster.calls` counts them.
- A retry depends on state that all threads share: since when the server is unreachable, and whether the run is over.
  tenacity would need a custom stop, a custom wait and two callbacks, which is more code than the loop in `_call`.
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

from fourfold_ops.kubernetes.cluster.connection import connection_pool, credentials

logger = logging.getLogger(__name__)
Object = dict[str, Any]

# Every call that the driver makes. `role_rules` turns the table into a Role, and `_path` refuses calls outside of it.
PERMISSIONS: dict[tuple[str, str], tuple[str, ...]] = {
    ("batch", "jobs"): ("create", "delete", "get", "list", "watch"),
    ("", "services"): ("create", "get"),  # no "delete": a Service is deleted with the Job that owns it
    ("", "pods"): ("list", "watch"),
    ("", "pods/log"): ("get",),
    ("", "events"): ("list", "watch"),
}
GROUPS = {resource: group for group, resource in PERMISSIONS}
METHODS = {"create": "POST", "delete": "DELETE"}  # all other verbs: GET
UNTRUSTED = 495  # not an answer of the server: its certificate is invalid (nginx uses the same number)
TRANSIENT = (408, 425, 429, 500, 502, 503, 504)  # status codes after which a call is repeated
CONNECT_SECONDS, READ_SECONDS, WATCH_SECONDS = 10, 30, 120
# A log stream without a line for so long is opened again: some streams hang forever (kubernetes-client/python#1546).
LOG_SECONDS = 120
# Before the first answer the address is probably wrong, so give up earlier than after a restart of the server.
FIRST_ANSWER_SECONDS = 15
FIRST_PAUSE_SECONDS, MAX_PAUSE_SECONDS = 0.25, 15.0  # between two attempts; doubles each time


class ApiError(Exception):
    """The server refused a call.

    Attributes:
        status: The HTTP status code, or `UNTRUSTED`.
        message: The message of the server.
        reason: The machine-readable reason of the server, e.g. "AlreadyExists"; "" if it sent none.
    """

    def __init__(self, status: int, verb: str, resource: str, namespace: str, message: str, reason: str = "") -> None:
        super().__init__(f"{verb} {resource} in namespace {namespace!r}: {message} ({status})")
        self.status, self.verb, self.resource, self.namespace = status, verb, resource, namespace
        self.message, self.reason = message, reason


class ApiUnreachableError(Exception):
    """The server has not answered for longer than the allowed time."""

    def __init__(self, server: str, seconds: float, cause: str) -> None:
        super().__init__(f"The API server {server} has not answered for {seconds:.0f} s: {cause}.")
        self.server, self.seconds, self.cause = server, seconds, cause


class Cluster:
    """One namespace of a cluster. All methods are thread-safe.

    Every method repeats its call while the server is unreachable, for at most `timeout_seconds`; then it raises
    ApiUnreachableError. A refusal raises ApiError.
    """

    def __init__(self, namespace: str, context: str | None = None, timeout_seconds: float = 300) -> None:
        self.namespace, self.timeout_seconds = namespace, timeout_seconds
        self.calls: Counter[str] = Counter()  # number of calls by "verb resource"
        self.unreachable_since: float | None = None  # time.monotonic()
        self.closed = threading.Event()  # once set, no call waits or is repeated
        self._answered = False
        self._configuration = credentials(context)
        self._pool = connection_pool(self._configuration)

    @property
    def server(self) -> str:
        """Address of the server."""
        return str(self._configuration.host)

    def create(self, resource: str, manifest: Object, dry_run: bool = False) -> Object:
        """Create an object and return it as stored by the server. Raises ApiError with status 409 if it exists."""
        query = {"dryRun": "All"} if dry_run else {}
        return self._json("create", resource, body=manifest, query=query)

    def get(self, resource: str, name: str) -> Object:
        """Return one object. Raises ApiError with status 404 if it does not exist."""
        return self._json("get", resource, name)

    def all(self, resource: str, selector: str = "") -> list[Object]:
        """Return all objects that match a label selector."""
        return self._all_with_version(resource, selector)[0]

    def _all_with_version(self, resource: str, selector: str) -> tuple[list[Object], str]:
        """Return the objects and the resource version from which a watch continues."""
        listing = self._json("list", resource, query=_query(labelSelector=selector))
        return listing.get("items", []), listing["metadata"]["resourceVersion"]

    def delete(self, resource: str, name: str, propagation: str = "Foreground", grace: int | None = None) -> bool:
        """Delete an object and what it owns. Returns False if it did not exist."""
        body = {"kind": "DeleteOptions", "apiVersion": "v1", "propagationPolicy": propagation}
        try:
            self._json("delete", resource, name, body=body | ({} if grace is None else {"gracePeriodSeconds": grace}))
        except ApiError as failure:
            if failure.status != 404:
                raise
            return False
        return True

    def watch(self, resource: str, selector: str = "") -> Iterator[tuple[str, Any]]:
        """Yield the objects that match, then every change to them, until `closed` is set.

        Yields:
            ("LISTED", list of all objects): first, and again whenever changes may have been missed.
            ("ADDED" | "MODIFIED" | "DELETED", object): for each change.
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
                    kind, changed = event["type"], event["object"]
                    if kind == "ERROR":
                        version = ""  # the version is too old (410): list again
                        break
                    version = changed["metadata"]["resourceVersion"]
                    if kind != "BOOKMARK":
                        yield kind, changed
            except ApiError as failure:
                if failure.status != 410:
                    raise
                version = ""

    def _events(self, resource: str, query: Mapping[str, str]) -> Iterator[Object]:
        response = self._call("watch", resource, query=query, read_seconds=WATCH_SECONDS + 30)
        for line in _lines(response):
            yield json.loads(line)

    def log(self, pod: str, since: str | None = None, follow: bool = True) -> Iterator[bytes]:
        """Yield the lines of a pod's log, each with a timestamp in front, until the stream ends or breaks.

        A last line without a line break is yielded without one, so that the caller sees that it may be incomplete.
        """
        query = _query(timestamps="true", follow="true" if follow else "", sinceTime=since or "")
        yield from _lines(self._call("get", "pods/log", pod, query=query, read_seconds=LOG_SECONDS), keep_ends=True)

    def _json(self, verb: str, resource: str, name: str = "", *, query: Any = None, body: Object | None = None) -> Object:
        with self._call(verb, resource, name, query=query, body=body) as response:
            answer: Object = json.loads(response.read())
        return answer

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
        """Return the response, unread. Repeats the call with growing pauses while the server is unreachable."""
        from urllib3 import Timeout
        from urllib3.exceptions import HTTPError, SSLError

        url = f"{self.server}{self._path(verb, resource, name)}?{urlencode(query or {})}"
        content = None if body is None else json.dumps(body).encode()
        timeout = Timeout(connect=CONNECT_SECONDS, read=read_seconds)
        pause = FIRST_PAUSE_SECONDS
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
                # Other TLS errors can be a server that restarts; an invalid certificate does not heal.
                if isinstance(error, SSLError) and "CERTIFICATE_VERIFY_FAILED" in str(error):
                    raise ApiError(UNTRUSTED, verb, self.server, self.namespace, _readable(error)) from None
                cause = _readable(error)
            else:
                if response.status < 400:
                    self._note_answer()
                    return response
                failure = self._failure(response, verb, resource)
                if failure.status not in TRANSIENT:
                    self._note_answer()
                    raise failure
                cause = f"{failure.status} {failure.message}"
            self._note_no_answer(cause)
            self.closed.wait(pause * random.uniform(0.8, 1.2))  # noqa: S311, jitter: many drivers may wait for one server
            pause = min(2 * pause, MAX_PAUSE_SECONDS)

    def _path(self, verb: str, resource: str, name: str) -> str:
        assert verb in PERMISSIONS[GROUPS[resource], resource], f"{verb} {resource} is not in PERMISSIONS"
        group, (kind, _, sub) = GROUPS[resource], resource.partition("/")
        root = f"/apis/{group}/v1" if group else "/api/v1"
        return "/".join(part for part in (root, "namespaces", self.namespace, kind, name, sub) if part)

    def _headers(self) -> dict[str, str]:
        headers = {"Accept": "application/json", "Content-Type": "application/json", "User-Agent": "fourfold-ops"}
        for auth in self._configuration.auth_settings().values():  # refreshes a token that has expired
            if auth["in"] == "header" and auth["value"]:
                headers[auth["key"]] = auth["value"]
        return headers

    def _failure(self, response: Any, verb: str, resource: str) -> ApiError:
        with response:
            text = response.read().decode("utf-8", "replace")
        try:
            status = json.loads(text)
        except ValueError:
            status = {}
        message = str(status.get("message") or text.strip()[:300] or response.reason)
        return ApiError(response.status, verb, resource, self.namespace, message, str(status.get("reason", "")))

    def _note_answer(self) -> None:
        if self.unreachable_since is not None:
            logger.info("The API server answers again after %.0f s.", time.monotonic() - self.unreachable_since)
        self._answered, self.unreachable_since = True, None

    def _note_no_answer(self, cause: str) -> None:
        """Raise ApiUnreachableError if the server has been unreachable for too long."""
        now = time.monotonic()
        if self.unreachable_since is None:
            self.unreachable_since = now
            logger.warning("The API server %s does not answer (%s); retrying.", self.server, cause)
        seconds = now - self.unreachable_since
        limit = self.timeout_seconds if self._answered else min(FIRST_ANSWER_SECONDS, self.timeout_seconds)
        if self.closed.is_set() or seconds > limit:
            raise ApiUnreachableError(self.server, seconds, cause)


def _lines(response: Any, keep_ends: bool = False) -> Iterator[bytes]:
    """Yield the lines of a streamed response. A broken stream ends without an error: the caller opens it again."""
    from urllib3.exceptions import HTTPError

    rest = b""
    try:
        while piece := response.read1(65536):
            *complete, rest = (rest + piece).split(b"\n")
            yield from (line + b"\n" if keep_ends else line for line in complete)
    except (HTTPError, OSError, ValueError) as error:
        logger.debug("A stream broke: %s", error)
    finally:
        response.close()
        response.release_conn()
    if rest and keep_ends:
        yield rest


def _query(**values: Any) -> dict[str, str]:
    return {name: str(value) for name, value in values.items() if value}


def _readable(error: Exception) -> str:
    reason = getattr(error, "reason", None) or error
    text = str(reason).rpartition(": ")[2] if ": " in str(reason) else str(reason)
    return text or type(error).__name__


def role_rules() -> list[dict[str, Any]]:
    """Return the rules of the driver's Role, one per resource: exactly `PERMISSIONS`."""
    return [
        {"apiGroups": [group], "resources": [resource], "verbs": list(verbs)}
        for (group, resource), verbs in sorted(PERMISSIONS.items())
    ]
