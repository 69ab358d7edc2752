"""A port to listen at; one that is in use is named together with the next free one.

`python -m fourfold_ops.server.listening 5000` checks a port for programs that do not: it ends with 1 and the free port's number
on the last line.
"""

import errno
import socket
import sys

from fourfold_ops.errors import UserError

BACKLOG = 2048  # early requests wait until the server accepts them
MAX_TRIES = 100


def listen(host: str, port: int) -> socket.socket:
    """Return a socket that listens at a port, 0 for any free one.

    Raises:
        UserError: The address cannot be used; for a port in use, the remedy names the next free one.
    """
    try:
        return _bound(host, port)
    except OSError as error:
        free = next_free(host, port) if error.errno == errno.EADDRINUSE else None
        remedy = "Choose another --host or --port." if free is None else f"Choose another one: --port={free} is free."
        raise UserError(f"Cannot listen at {host}:{port}: {error.strerror}.", remedy) from error


def next_free(host: str, port: int) -> int | None:
    """Return the first port after `port` at which nothing listens, or None if there is none among the next 100."""
    for candidate in range(port + 1, min(port + MAX_TRIES, 65_535) + 1):
        try:
            _bound(host, candidate).close()
        except OSError:
            continue
        return candidate
    return None


def _bound(host: str, port: int) -> socket.socket:
    listener = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((host, port))
        listener.listen(BACKLOG)
    except OSError:
        listener.close()
        raise
    return listener


def main(arguments: list[str]) -> int:
    """Check one port of this machine; return 0 if it is free, 1 after a line that names the next free one."""
    host, port = "127.0.0.1", int(arguments[0])
    try:
        _bound(host, port).close()
    except OSError as error:
        free = next_free(host, port)
        choice = f"PORT={free} is free." if free else "Choose another PORT."
        print(f"Port {port} of {host} cannot be used: {error.strerror}. {choice}")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
