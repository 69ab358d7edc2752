"""A Postgres server and an MLflow server over it, on loopback, for tests."""

import contextlib
import os
import shutil
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from importlib.util import find_spec
from pathlib import Path

from ports import free_port

USER = 65534  # Postgres refuses to run as root
START_SECONDS = 300
ONE_SERVER = {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}  # or MLflow starts eight more processes, which nothing here uses


@contextlib.contextmanager
def mlflow_on_postgres(folder: Path, artifacts: str, **environment: str) -> Iterator[str]:
    """Run an MLflow server that keeps runs and models in Postgres and serves artifacts itself; yield its address."""
    with postgres(folder / "postgres") as database, mlflow_server(folder, database, artifacts, **environment) as uri:
        yield uri


@contextlib.contextmanager
def mlflow_server(folder: Path, database: str, artifacts: str, port: int = 0, **environment: str) -> Iterator[str]:
    """Run an MLflow server over a database that serves artifacts itself; yield its address.

    Args:
        folder: For its log.
        database: Address of the database.
        artifacts: Folder or address where the server keeps artifacts.
        port: 0 for a free one.
        **environment: Variables of its process.
    """
    port = port or free_port()
    options = [f"--backend-store-uri={database}", f"--artifacts-destination={artifacts}", "--serve-artifacts"]
    address = ["--host=127.0.0.1", f"--port={port}", "--workers=1"]
    command = [sys.executable, "-m", "mlflow", "server", *options, *address]
    uri = f"http://127.0.0.1:{port}"
    with running(command, folder / "mlflow.log", lambda: _answers(f"{uri}/health"), environment):
        yield uri


@contextlib.contextmanager
def postgres(folder: Path) -> Iterator[str]:
    """Run a Postgres server with an empty database; yield the address that SQLAlchemy takes."""
    binaries = _binaries()
    data, port = folder / "data", free_port()
    data.mkdir(parents=True)
    data.chmod(0o700)
    if os.geteuid() == 0:
        for path in (folder, data):
            os.chown(path, USER, USER)
    log = folder / "log"
    create = [binaries / "initdb", f"--pgdata={data}", "--username=mlflow", "--auth=trust", "--no-sync", "--locale=C"]
    subprocess.run(_as_user(create), cwd=folder, check=True, capture_output=True)
    # No socket file: its path could be too long. No flush to disk: a test does not survive a power cut anyway.
    serve = [binaries / "postgres", "-D", data, "-p", port, "-h", "127.0.0.1", "-k", "", "-F"]
    with running(_as_user(serve), log, lambda: _listens(port)):
        yield f"postgresql+psycopg2://mlflow@127.0.0.1:{port}/postgres"


def _binaries() -> Path:
    """Return the folder of Postgres programs, which the package pgserver carries."""
    found = find_spec("pgserver")
    assert found is not None and found.origin is not None, "The package pgserver is not installed. Run `make setup`."
    return Path(found.origin).parent / "pginstall/bin"


def _as_user(command: list[object]) -> list[str]:
    """Return the command; root starts it as another user, who may read folders of root."""
    own = [str(part) for part in command]
    if os.geteuid() != 0:
        return own
    assert shutil.which("setpriv"), "Root needs setpriv (package util-linux) to start Postgres as another user."
    user = ["setpriv", f"--reuid={USER}", f"--regid={USER}", "--clear-groups"]
    return [*user, "--inh-caps=+dac_read_search", "--ambient-caps=+dac_read_search", "--", *own]


@contextlib.contextmanager
def running(
    command: list[str], log: Path, is_ready: Callable[[], bool], environment: dict[str, str] | None = None
) -> Iterator[None]:
    """Run a server until it is ready, and stop it at the end."""
    with log.open("wb") as output:
        own = os.environ | ONE_SERVER | (environment or {})
        process = subprocess.Popen(command, cwd=log.parent, env=own, stdout=output, stderr=subprocess.STDOUT)
    try:
        deadline = time.monotonic() + START_SECONDS
        while not is_ready():
            assert process.poll() is None and time.monotonic() < deadline, f"{command} did not start: {log.read_text()[-3000:]}"
            time.sleep(0.05)
        yield
    finally:
        process.terminate()
        process.wait(120)


def _listens(port: int) -> bool:
    with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
        return True
    return False


def _answers(url: str) -> bool:
    with contextlib.suppress(OSError), urllib.request.urlopen(url, timeout=5):
        return True
    return False
