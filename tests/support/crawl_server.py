"""A web server on loopback with everything that a download of old addresses meets."""

import io
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import numpy as np
from PIL import Image


def jpeg(number: int, side: int = 80) -> bytes:
    """A JPEG that differs from that of every other number."""
    coarse = np.random.default_rng(number).integers(0, 256, (4, 4, 3), dtype=np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(coarse.repeat(side // 4, 0).repeat(side // 4, 1)).save(buffer, "JPEG", quality=95)
    return buffer.getvalue()


class Server(ThreadingHTTPServer):
    """Counts requests by path."""

    daemon_threads = True
    request_queue_size = 128

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.requests: Counter[str] = Counter()
        self.is_closing = False
        self.robots: tuple[int, bytes] | str = (404, b"")  # status and content of robots.txt, or the kind of another answer

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"


class _Handler(BaseHTTPRequestHandler):
    server: Server

    def log_message(self, *_: object) -> None:
        pass

    def do_GET(self) -> None:
        self.server.requests[self.path] += 1
        kind = self.path.strip("/").partition("/")[0] if self.path != "/robots.txt" else "robots"
        with suppress(BrokenPipeError, ConnectionResetError):  # the client has given up
            getattr(self, f"_{kind}", self._missing)()

    def _answer(self, content: bytes, *headers: tuple[str, str], kind: str = "image/jpeg", status: int = 200) -> None:
        self.send_response(status)
        for name, value in (("Content-Type", kind), ("Content-Length", str(len(content))), *headers):
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(content)

    def _good(self) -> None:
        self._answer(jpeg(int(self.path.rpartition("/")[2].partition(".")[0])))

    def _large(self) -> None:
        self._answer(jpeg(7, 1600))

    def _missing(self) -> None:
        self._answer(b"gone", status=404)

    def _robots(self) -> None:
        if isinstance(self.server.robots, str):
            getattr(self, f"_{self.server.robots}")()
            return
        status, content = self.server.robots
        self._answer(content, kind="text/plain", status=status)

    def _html(self) -> None:
        self._answer(b"<!doctype html><title>Domain for sale</title>", kind="image/jpeg")

    def _loop(self) -> None:
        self._answer(b"", ("Location", self.path), status=302)

    def _file(self) -> None:
        self._answer(b"", ("Location", "file:///etc/hostname"), status=302)

    def _noai(self) -> None:
        self._answer(jpeg(8), ("X-Robots-Tag", "noai"))

    def _silent(self) -> None:
        """Answers nothing."""
        while not self.server.is_closing:
            time.sleep(0.05)

    def _endless(self) -> None:
        """Sends a JPEG without an end."""
        self.send_response(200)
        self.end_headers()
        content = jpeg(9) * 200
        while not self.server.is_closing:
            self.wfile.write(content)

    def _drip(self) -> None:
        """Sends one byte after the other: no single read times out."""
        self.send_response(200)
        self.end_headers()
        for byte in jpeg(10):
            if self.server.is_closing:
                return
            self.wfile.write(bytes([byte]))
            self.wfile.flush()
            time.sleep(0.05)


@contextmanager
def serving() -> Iterator[Server]:
    """Serve until the end of the block."""
    server = Server()
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    try:
        yield server
    finally:
        server.is_closing = True
        server.shutdown()
        server.server_close()
        thread.join()
