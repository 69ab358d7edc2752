"""A non-blocking connection between two launchers that carries JSON messages, one per line.

An empty line is a heartbeat. A connection that closes, or that is silent for `LEASE_SECONDS`, is lost.
"""

import json
import socket
import time
from typing import Any

HEARTBEAT_SECONDS = 2.0
LEASE_SECONDS = 30.0  # longer than a short network outage or a paused virtual machine
MAX_LINE_BYTES = 4096


class Channel:
    """One end of a connection.

    No method blocks; `receive` has to be called regularly, since it sends the heartbeats.
    """

    def __init__(self, connection: socket.socket) -> None:
        connection.setblocking(False)
        self._socket, self._rest, self._closed = connection, b"", False
        self._received_at = self._sent_at = time.monotonic()

    @property
    def is_lost(self) -> bool:
        """Whether the other end is gone."""
        return self._closed or time.monotonic() - self._received_at > LEASE_SECONDS

    def send(self, kind: str, **fields: Any) -> None:
        """Send a message."""
        self._send(json.dumps({"kind": kind, **fields}).encode() + b"\n")

    def receive(self) -> list[dict[str, Any]]:
        """Return the messages that have arrived, and send a heartbeat if one is due."""
        if time.monotonic() - self._sent_at > HEARTBEAT_SECONDS:
            self._send(b"\n")
        lines: list[bytes] = []
        while not self._closed:
            try:
                chunk = self._socket.recv(65536)
            except BlockingIOError:
                break
            except OSError:
                chunk = b""
            if not chunk or len(self._rest) > MAX_LINE_BYTES:
                self.close()
            *complete, self._rest = (self._rest + chunk).split(b"\n")
            self._received_at, lines = time.monotonic(), [*lines, *complete]
        return [message for line in lines if line and isinstance(message := _parse(line), dict)]

    def close(self) -> None:
        """Close the connection."""
        self._closed = True
        self._socket.close()

    def _send(self, data: bytes) -> None:
        self._sent_at = time.monotonic()
        try:
            self._socket.sendall(data)
        except OSError:  # also BlockingIOError: a full buffer means that the other end has not read for long
            self.close()


def _parse(line: bytes) -> Any:
    try:
        return json.loads(line)
    except ValueError:
        return None
