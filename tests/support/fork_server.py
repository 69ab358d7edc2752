"""The process that `preloaded` copies: it imports the libraries, then forks for each command.

Only libraries are imported beforehand; fourfold, `fourfold_ops` and the pipelines load in each command, from the PYTHONPATH of
its environment.
"""

import atexit
import contextlib
import json
import os
import shutil
import signal
import socket
import struct
import sys
import tempfile
import time
import traceback
from pathlib import Path
from typing import Any

from flushing import VARIABLE, skip_flushes

LIBRARIES = (
    "great_expectations",
    "kedro.framework.cli",
    "kedro.framework.session",
    "kedro_datasets",
    "matplotlib.pyplot",
    "mlflow",
    "mlflow.pyfunc",
    "mlflow.store.tracking.sqlalchemy_store",
    "pandas",
    "safetensors.torch",
    "scipy",
    "torch",
)
QUIET = {"DO_NOT_TRACK": "1", "GX_ANALYTICS_ENABLED": "false", "MLFLOW_DISABLE_TELEMETRY": "true"}  # read at import
JOIN_SECONDS = 60  # for the process that started this one, or it ends


def _serve(name: str) -> None:
    """Import the libraries, then answer requests, one JSON line each, until the processes that have joined are gone.

    Requests: `join`, start a command, and report whether one has ended (`poll`).
    """
    with socket.socket(socket.AF_UNIX) as listening:
        try:
            listening.bind(name if "/" in name else f"\0{name}")
        except OSError:  # another process was faster
            return
        listening.listen(64)
        home = _own_home()
        _prepare()
        listening.settimeout(1)
        clients: set[int] = set()
        deadline = time.monotonic() + JOIN_SECONDS
        while any(map(_is_alive, clients)) or (not clients and time.monotonic() < deadline):
            with contextlib.suppress(TimeoutError):
                connection, _ = listening.accept()
                with connection:
                    _answer(connection, listening, clients)
        shutil.rmtree(home, ignore_errors=True)


def _own_home() -> Path:
    """Return a new folder, which is the home if this user has none: Matplotlib would make one that each command deletes."""
    home = Path(tempfile.mkdtemp(prefix="fourfold-tests-"))
    if not os.access(Path.home(), os.W_OK):
        os.environ["HOME"] = str(home)
    return home


def _answer(connection: socket.socket, listening: socket.socket, clients: set[int]) -> None:
    """Answer one request; only of the own user, or of root."""
    if hasattr(socket, "SO_PEERCRED"):
        _, user, _ = struct.unpack("3i", connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12))
        if user not in (0, os.getuid()):
            return
    connection.settimeout(None)
    _, descriptors, _, _ = socket.recv_fds(connection, 1, 3)
    with connection.makefile("r") as lines:
        request = json.loads(lines.readline())
    if "join" in request:
        clients.add(request["join"])
        answer: int | None = request["join"]
    elif "poll" in request:
        answer = _poll(request["poll"])
    else:
        answer = _start(request, descriptors, (connection, listening))
    for descriptor in descriptors:
        os.close(descriptor)
    with contextlib.suppress(BrokenPipeError):
        connection.sendall(json.dumps(answer).encode() + b"\n")


def _is_alive(pid: int) -> bool:
    """Return whether a process runs; one that has ended and that its parent did not wait for does not."""
    try:
        os.kill(pid, 0)
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except PermissionError:  # of another user
        return True
    except FileNotFoundError:  # no Linux
        return not Path("/proc").exists()
    except OSError:
        return False


def _prepare() -> None:
    """Import the libraries; what they print goes to stderr."""
    os.dup2(2, 1)
    os.environ.update(QUIET)
    for name in LIBRARIES:
        with contextlib.suppress(ImportError):
            __import__(name)
    with contextlib.suppress(ImportError):
        _remember_schema()
    if os.environ.get(VARIABLE):
        skip_flushes()


def _remember_schema() -> None:
    """Let MLflow look for the newest version of its tables once: each process would read all migrations."""
    from mlflow.store.db import utils

    newest = utils._get_latest_schema_revision()
    utils._get_latest_schema_revision = lambda: newest


def _start(request: dict[str, Any], descriptors: list[int], of_server: tuple[socket.socket, ...]) -> int:
    pid = os.fork()
    if not pid:
        for one in of_server:
            one.close()
        _become(request, descriptors)
    return pid


def _poll(pid: int) -> int | None:
    found, status = os.waitpid(pid, os.WNOHANG)
    return os.waitstatus_to_exitcode(status) if found else None


def _become(request: dict[str, Any], descriptors: list[int]) -> None:
    """Run a program of Python's `bin` folder as if it had been started there. Never returns."""
    status = 1
    try:
        os.setsid()
        flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND
        opened = [os.open(path, flags, 0o644) for path in request.get("streams", [])]
        for stream, descriptor in enumerate(descriptors or [os.open(os.devnull, os.O_RDONLY), *opened]):
            os.dup2(descriptor, stream)
        sys.stdin = open(0, closefd=False)  # noqa: SIM115 (lives as long as the process)
        sys.stdout = open(1, "w", buffering=1, closefd=False)  # noqa: SIM115
        sys.stderr = open(2, "w", buffering=1, closefd=False)  # noqa: SIM115
        os.chdir(request["cwd"])
        os.environ.clear()
        os.environ.update(request["environment"])
        paths = os.environ.get("PYTHONPATH", "").split(os.pathsep)
        sys.path[:1] = [path for path in paths if path]  # the first entry was the folder of this file
        sys.argv = request["argv"]
        signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell starts background processes with SIGINT ignored
        exec(request["first"], {})
        status = _run(Path(sys.argv[0]))
    except KeyboardInterrupt:
        status = 130
    except BaseException:
        traceback.print_exc()
    finally:
        with contextlib.suppress(Exception):
            sys.stdout.flush()
            sys.stderr.flush()
        os._exit(status)


def _run(program: Path) -> int:
    """Execute a console script and return its exit status."""
    code = compile(program.read_text(encoding="utf-8"), str(program), "exec")
    try:
        exec(code, {"__name__": "__main__", "__file__": str(program)})
    except SystemExit as done:
        if isinstance(done.code, str):
            print(done.code, file=sys.stderr)
        return done.code if isinstance(done.code, int) else int(done.code is not None)
    finally:
        atexit._run_exitfuncs()  # `os._exit` does not
    return 0


if __name__ == "__main__":
    _serve(sys.argv[1])
