"""Start commands in copies of one process that has already imported the large libraries.

A `kedro run` imports torch, MLflow, Great Expectations and more, which takes longer than a whole stage of the tiny data set.
Tests that start many commands fork a process that has done it once (`fork_server.py`), and which all processes of a parallel
run of the tests share.
"""

import contextlib
import hashlib
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from functools import cache
from pathlib import Path
from typing import Any

START_SECONDS = 300  # until the libraries are imported on a busy machine


def run(command: list[str], cwd: Path, environment: dict[str, str], timeout: float = 300) -> subprocess.CompletedProcess[str]:
    """Run a console script of this environment to its end, as `subprocess.run` does with `capture_output` and `text`."""
    with tempfile.TemporaryDirectory() as folder:
        streams = (Path(folder) / "out", Path(folder) / "error")
        status = Command(command, cwd, environment, *streams).wait(timeout)
        return subprocess.CompletedProcess(command, status, *(path.read_text(errors="replace") for path in streams))


class Command:
    """A console script of this environment, in its own process group. Its output goes to a file, or to two."""

    def __init__(
        self,
        command: list[str],
        cwd: Path,
        environment: dict[str, str],
        output: Path,
        errors: Path | None = None,
        *,
        first: str = "",
        launcher: tuple[str, ...] = (),
    ) -> None:
        """Start the command.

        Args:
            command: Name of the script and its arguments.
            cwd: Its folder.
            environment: All of its environment variables.
            output: The file that its output is appended to.
            errors: The file for stderr, by default `output`.
            first: Python code that the new process executes beforehand, e.g. to set limits.
            launcher: The beginning of a command line, e.g. with `setpriv`, that starts the process to be copied.
        """
        program = Path(sys.executable).parent / command[0]
        streams = [str(output), str(errors or output)]
        request = {"argv": [str(program), *command[1:]], "cwd": str(cwd), "environment": environment, "streams": streams}
        request |= {"first": first}
        self.output, self._server = output, _server(launcher)
        self.pid = self._server.start(request)
        self.returncode: int | None = None

    def poll(self) -> int | None:
        """Return the exit status if the command has ended; the negative signal number if a signal ended it."""
        if self.returncode is None:
            self.returncode = self._server.ask({"poll": self.pid})
        return self.returncode

    def wait(self, timeout: float) -> int:
        """Return the exit status.

        Raises:
            TimeoutError: The command still runs after `timeout` seconds; it is killed.
        """
        deadline = time.monotonic() + timeout
        while self.poll() is None:
            if time.monotonic() > deadline:
                self.kill()
                raise TimeoutError(f"still running after {timeout} s: {self.text()[-3000:]}")
            time.sleep(0.05)
        assert self.returncode is not None
        return self.returncode

    def kill(self) -> None:
        """Send SIGKILL to the process group, and wait for the process."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.pid, signal.SIGKILL)
        while self.poll() is None:
            time.sleep(0.01)

    def text(self) -> str:
        """Return the output so far."""
        return self.output.read_text(errors="replace") if self.output.exists() else ""


def stand_in(folder: Path) -> Path:
    """Write a program `kedro` for programs that start it themselves, such as torchrun and DVC; return the folder for PATH."""
    folder.mkdir(parents=True, exist_ok=True)
    program = folder / "kedro"
    real = str(Path(sys.executable).with_name("kedro"))
    program.write_text(STAND_IN.format(python=sys.executable, address=_server(()).address, real=real))
    program.chmod(0o755)
    return folder


STAND_IN = """#!{python} -IS
import json, os, signal, socket, sys, time

def ask(request, descriptors=()):
    with socket.socket(socket.AF_UNIX) as connection, connection.makefile("r") as answer:
        connection.connect({address!r})
        socket.send_fds(connection, [b" "], descriptors)
        connection.sendall(json.dumps(request).encode() + b"\\n")
        return json.loads(answer.readline())

request = {{"argv": [{real!r}, *sys.argv[1:]], "cwd": os.getcwd(), "environment": dict(os.environ), "first": ""}}
pid = ask(request, [0, 1, 2])
signal.signal(signal.SIGTERM, lambda *_: os.killpg(pid, signal.SIGTERM))
while (status := ask({{"poll": pid}})) is None:
    time.sleep(0.02)
sys.exit(status if status >= 0 else 128 - status)
"""


class _Server:
    """The connection to the process that forks, which all processes of a parallel run share."""

    def __init__(self, launcher: tuple[str, ...]) -> None:
        run = os.environ.get("PYTEST_XDIST_TESTRUNUID") or f"{os.getpid()}"
        name = f"fourfold-tests-{hashlib.sha256(json.dumps([run, launcher]).encode()).hexdigest()[:16]}"
        # On Linux a name without a file. If several processes start a server at once, those that cannot take the name end.
        self.address = f"\0{name}" if sys.platform == "linux" else f"{tempfile.mkdtemp()}/{name}"
        program = Path(__file__).resolve().with_name("fork_server.py")
        command = [*launcher, sys.executable, str(program), name if sys.platform == "linux" else self.address]
        self._process: subprocess.Popen[bytes] | None = None
        # Not the pipes of this process: their reader would wait for a server that outlives it.
        self._log = tempfile.TemporaryFile()  # noqa: SIM115 (lives as long as the server is used)
        streams = {"stdin": subprocess.DEVNULL, "stdout": self._log, "stderr": self._log}
        deadline = time.monotonic() + START_SECONDS
        while True:
            try:
                self.ask({"join": os.getpid()})
                return
            except (ConnectionRefusedError, FileNotFoundError):
                assert time.monotonic() < deadline, f"the process with the libraries does not answer: {self._printed()}"
                self._process = self._process or subprocess.Popen(command, start_new_session=True, **streams)
                time.sleep(0.05)

    def _printed(self) -> str:
        self._log.seek(0)
        return self._log.read().decode(errors="replace")[-3000:]

    def ask(self, request: dict[str, Any]) -> Any:
        with socket.socket(socket.AF_UNIX) as connection, connection.makefile("r") as answer:
            connection.connect(self.address)
            connection.sendall(b" " + json.dumps(request).encode() + b"\n")
            line = answer.readline()
        assert line, f"the process with the libraries has died: {self._printed()}"
        return json.loads(line)

    def start(self, request: dict[str, Any]) -> int:
        return int(self.ask(request))


@cache
def _server(launcher: tuple[str, ...]) -> _Server:
    """Return the only server of this launcher; it starts with the first command."""
    return _Server(launcher)
