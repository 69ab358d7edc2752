"""A connection between launchers: words are lines of JSON, an empty line is a sign of life, silence is an end."""

import json
import socket
import time
from typing import Any

BEAT_SECONDS = 2.0
LEASE_SECONDS = 30.0  # of silence: the pod, its node or the network between is gone
LONGEST_LINE = 4096


class Channel:
    """One end of a connection. Never waits: what has come is heard, what is said is handed to the kernel."""

    def __init__(self, connection: socket.socket) -> None:
        connection.setblocking(False)
        self._socket, self._rest, self._closed = connection, b"", False
        self._heard_at = self._said_at = time.monotonic()

    @property
    def is_lost(self) -> bool:
        """Whether nobody is at the other end any more."""
        return self._closed or time.monotonic() - self._heard_at > LEASE_SECONDS

    def say(self, word: str, **more: Any) -> None:
        """Send a word."""
        self._send(json.dumps({"word": word, **more}).encode() + b"\n")

    def hear(self) -> list[dict[str, Any]]:
        """Return the words that have come, and give a sign of life now and then."""
        if time.monotonic() - self._said_at > BEAT_SECONDS:
            self._send(b"\n")
        found: list[bytes] = []
        while not self._closed:
            try:
                piece = self._socket.recv(65536)
            except BlockingIOError:
                break
            except OSError:
                piece = b""
            if not piece or len(self._rest) > LONGEST_LINE:
                self.close()
            *lines, self._rest = (self._rest + piece).split(b"\n")
            self._heard_at, found = time.monotonic(), [*found, *lines]
        return [word for line in found if line and isinstance(word := _parsed(line), dict)]

    def close(self) -> None:
        """Leave."""
        self._closed = True
        self._socket.close()

    def _send(self, text: bytes) -> None:
        self._said_at = time.monotonic()
        try:
            self._socket.sendall(text)
        except OSError:  # gone, or so far behind that it is as good as gone
            self.close()


def _parsed(line: bytes) -> Any:
    try:
        return json.loads(line)
    except ValueError:
        return None
