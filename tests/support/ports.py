"""Ports for servers that start later, in another process."""

import secrets
import socket

# Below those that Linux gives to outgoing connections and to port 0 (32768 and higher unless configured): one of these may be
# taken before the server starts, by any connection on the machine. Above the ports of a cluster.
FIRST, LAST = 20_000, 29_998


def free_port(count: int = 1, host: str = "127.0.0.1") -> int:
    """Return the first of `count` ports in a row on which nothing listens; it is even."""
    for _ in range(1_000):
        port = FIRST + 2 * secrets.randbelow((LAST - FIRST - count) // 2)
        if all(_is_free(host, port + offset) for offset in range(count)):
            return port
    raise AssertionError(f"no {count} free ports in a row from {FIRST} to {LAST}")


def _is_free(host: str, port: int) -> bool:
    try:
        with socket.create_server((host, port)):
            return True
    except OSError:
        return False
