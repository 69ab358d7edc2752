"""Several models behind one server: each has a child process that starts when it is first asked."""

import asyncio
import contextlib
import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from fourfold_ops.errors import UserError
from fourfold_ops.server.batching import Answer, Batcher, Limits
from fourfold_ops.server.metrics import Metrics
from fourfold_ops.server.process import FolderSpec, ModelProcess

logger = logging.getLogger(__name__)
MAX_PROCESSES = 3  # each holds a model in memory


@dataclass(frozen=True)
class Choice:
    """A model that users can choose."""

    id: str  # the number of a version, or "folder"
    name: str  # of the registered model, or the path of the folder
    aliases: tuple[str, ...] = ()
    marks: tuple[str, ...] = ()  # what a user of this version must know, e.g. "dirty"
    folder: FolderSpec | None = None

    def shown(self) -> dict[str, Any]:
        """Return the choice as JSON."""
        return {"id": self.id, "name": self.name, "aliases": self.aliases, "marks": self.marks}


@dataclass
class Running:
    """The process of one model with its queue."""

    batcher: Batcher
    queue: asyncio.Task[None]
    started: asyncio.Task[dict[str, Any]]

    async def stop(self) -> None:
        """End the process."""
        for task in (self.started, self.queue):
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError, UserError):
                await task
        await self.batcher.close()


class Pool:
    """Starts models when they are asked for; of more than three, the one that was used longest ago is stopped."""

    def __init__(self, choices: Callable[[], Sequence[Choice]], environment: dict[str, str], limits: Limits) -> None:
        """Create the pool; nothing is started yet.

        Args:
            choices: Returns what can be chosen now, the default first. It may ask a registry.
            environment: Variables of the processes.
            limits: Of requests to each model.
        """
        self._choices, self._environment, self.limits = choices, environment, limits
        self._running: dict[str, Running] = {}  # the one used longest ago first
        self._changing = asyncio.Lock()

    async def choices(self) -> list[Choice]:
        """Return what can be chosen now, the default first."""
        return list(await asyncio.to_thread(self._choices))

    async def describe(self, id: str) -> dict[str, Any]:
        """Return inputs, outputs and parameters of a model, which is started if needed.

        Raises:
            UserError: There is no such model, or it cannot be loaded.
        """
        return await asyncio.shield((await self._of(id)).started)

    async def predict(self, id: str, body: bytes) -> Answer:
        """Return status and body of the answer to one request; raises as `describe` and `Batcher.submit` do."""
        running = await self._of(id)
        await asyncio.shield(running.started)
        return await running.batcher.submit("predict", body)

    async def close(self) -> None:
        """Stop all processes."""
        for running in self._running.values():
            await running.stop()
        self._running.clear()

    async def _of(self, id: str) -> Running:
        async with self._changing:
            found = self._running.pop(id, None)
            if found is not None and found.started.done() and found.started.exception() is not None:
                await found.stop()  # it could not be loaded: try again
                found = None
            if found is None:
                found = self._start(await self._choice(id))
            self._running[id] = found  # the last one
            while len(self._running) > MAX_PROCESSES:
                await self._running.pop(next(iter(self._running))).stop()
            return found

    async def _choice(self, id: str) -> Choice:
        choices = await self.choices()
        for choice in choices:
            if choice.id == id:
                return choice
        raise UserError(f"There is no model {id!r}.", f"Choose one of {', '.join(choice.id for choice in choices)}.")

    def _start(self, choice: Choice) -> Running:
        logger.info("Loading %s %s.", choice.name, choice.id)
        process = ModelProcess(choice.name, "" if choice.folder else choice.id, self._environment, choice.folder)
        batcher = Batcher(self.limits, Metrics())

        async def start() -> dict[str, Any]:
            await process.start()
            batcher.move(process)
            return process.description

        return Running(batcher, asyncio.ensure_future(batcher.run()), asyncio.ensure_future(start()))
