"""The child process with one version of the model, as the server sees it."""

import asyncio
import contextlib
import json
import os
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from fourfold_ops.errors import UserError
from fourfold_ops.server import worker

SECONDS_TO_LOAD = 600.0
SECONDS_TO_STOP = 10.0


@dataclass(frozen=True)
class FolderSpec:
    """A model folder that is in no registry, and how it is loaded."""

    path: str
    loader: str  # dotted path of a class with `load(folder: Path)`, as for a registered model
    params: dict[str, Any]  # of requests, with defaults
    plugins: tuple[str, ...] = ()  # modules with a function `register()`, called before the model is loaded


class ProcessDiedError(Exception):
    """Raised when the process ends instead of answering."""


class ModelProcess:
    """A model in a child process; one batch at a time."""

    def __init__(self, name: str, number: str, environment: dict[str, str], folder: FolderSpec | None = None) -> None:
        """Describe the process; `start` starts it.

        Args:
            name, number: Version of a registered model.
            environment: Variables of the process, besides those of this one.
            folder: A model folder instead of the registered version; `number` is then "".
        """
        self.name, self.number = name, number
        self._environment, self._folder = environment, folder
        self._process: asyncio.subprocess.Process | None = None
        self.description: dict[str, Any] = {}

    async def start(self) -> None:
        """Start the process and wait until the model is loaded.

        Raises:
            UserError: The model cannot be loaded.
        """
        source = ["--folder", json.dumps(asdict(self._folder))] if self._folder else [f"models:/{self.name}/{self.number}"]
        command = [sys.executable, str(Path(worker.__file__).resolve()), *source]
        self._process = await asyncio.create_subprocess_exec(
            *command,
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            env=os.environ | {"MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false"} | self._environment,
            start_new_session=True,  # Ctrl-C must not reach it before its last answer
        )
        try:
            header, _ = await asyncio.wait_for(self._read(), SECONDS_TO_LOAD)
        except (ProcessDiedError, TimeoutError):
            header = {"failed": f"its process ended, or was not ready after {SECONDS_TO_LOAD:.0f} s"}
        except asyncio.CancelledError:
            await self.stop()
            raise
        if "ready" not in header:
            await self.stop()
            raise self._load_error(header["failed"])
        self.description = header["ready"]

    async def answer(self, requests: Sequence[tuple[str, bytes]]) -> list[tuple[int, bytes]]:
        """Return status and body for each request (its route, and its body).

        Raises:
            ProcessDiedError: The process has ended.
        """
        assert self._process is not None and self._process.stdin is not None
        header = {"routes": [route for route, _ in requests], "sizes": [len(body) for _, body in requests]}
        try:
            self._process.stdin.write(worker.frame(header, [body for _, body in requests]))
            await self._process.stdin.drain()
        except ConnectionError as error:
            raise ProcessDiedError from error
        found, bodies = await self._read()
        return list(zip(found["statuses"], worker.cut(bodies, found["sizes"]), strict=True))

    async def stop(self) -> None:
        """Let the process end, and kill it if it does not."""
        if self._process is None:
            return
        assert self._process.stdin is not None
        self._process.stdin.close()
        try:
            await asyncio.wait_for(self._process.wait(), SECONDS_TO_STOP if self.description else 0.1)
        except TimeoutError:
            with contextlib.suppress(ProcessLookupError):
                self._process.kill()
            await self._process.wait()

    def _load_error(self, reason: str) -> UserError:
        if self._folder is not None:
            return UserError(f"The model {self._folder.path} cannot be loaded: {reason.rstrip('.')}.", "Give another folder.")
        return UserError(
            f"Version {self.number} of the model {self.name} cannot be loaded: {reason}.",
            "Choose another version, or register the model again with `kedro run`.",
        )

    async def _read(self) -> tuple[Any, bytes]:
        assert self._process is not None and self._process.stdout is not None
        try:
            sizes = worker.HEADER.unpack(await self._process.stdout.readexactly(worker.HEADER.size))
            header, bodies = [await self._process.stdout.readexactly(size) for size in sizes]
        except asyncio.IncompleteReadError as error:
            raise ProcessDiedError from error
        return json.loads(header), bodies
