"""Follows an alias of the model registry: loads the version that it names, and moves when it names another one."""

import asyncio
import contextlib
import logging
import threading
from collections.abc import Callable
from typing import Any

from fourfold_ops.errors import UserError
from fourfold_ops.server.batching import Batcher
from fourfold_ops.server.metrics import Metrics
from fourfold_ops.server.process import ModelProcess

logger = logging.getLogger(__name__)


class RegistryAlias:
    """An alias of a registered model, e.g. `champion` of `fourfold`; or a fixed version."""

    def __init__(self, client: Any, name: str, alias: str) -> None:
        self.client, self.name, self.alias = client, name, alias

    def version(self) -> str:
        """Return the number of the version.

        Raises:
            UserError: The registry has no such model, alias or version.
        """
        from mlflow.exceptions import MlflowException

        try:
            if self.alias.isdecimal():
                return str(self.client.get_model_version(self.name, self.alias).version)
            return str(self.client.get_model_version_by_alias(self.name, self.alias).version)
        except MlflowException as error:
            raise UserError(
                f"The registry has no {self.name}@{self.alias} ({error.message.splitlines()[0]}).",
                "Register a model with `kedro run` and promote it with `kedro models promote candidate`, or choose another "
                "one with --model NAME@ALIAS.",
            ) from error


class Follower:
    """Keeps the batcher at the version of the alias."""

    def __init__(self, alias: RegistryAlias, batcher: Batcher, metrics: Metrics, environment: dict[str, str]) -> None:
        self._alias, self._batcher, self._metrics, self._environment = alias, batcher, metrics, environment
        self.failure: UserError | None = None

    async def run(self, first: str, seconds: float, stop: Callable[[], None]) -> None:
        """Load the first version, then look for another one every `seconds`; `stop` ends the server if the first fails."""
        try:
            await self._load(first)
        except UserError as error:
            self.failure = error
            stop()
            return
        in_use = tried = first
        while True:
            await asyncio.sleep(seconds)
            try:
                wanted = await _in_daemon(self._alias.version)
            except Exception as error:  # the registry may be away for a while: the model in use keeps answering
                logger.warning("Cannot read %s@%s: %s", self._alias.name, self._alias.alias, " ".join(str(error).split())[:200])
                continue
            if wanted == tried:  # in use, or it cannot be loaded
                continue
            tried = wanted
            if wanted == in_use:
                continue
            try:
                await self._load(wanted)
                in_use = wanted
            except UserError as error:
                self._metrics.failed_moves.inc()
                logger.error("%s %s Version %s stays in use.", error, error.remedy, in_use)

    async def _load(self, number: str) -> None:
        logger.info("Loading version %s of %s.", number, self._alias.name)
        process = ModelProcess(self._alias.name, number, self._environment)
        await process.start()
        self._batcher.move(process)


async def _in_daemon(function: Callable[[], str]) -> str:
    """Return the result of a function that may block for minutes, in a thread for which the end of the process does not wait.

    `asyncio.to_thread` would: a server whose registry is away could not stop until MLflow gives up.
    """
    loop = asyncio.get_running_loop()
    future: asyncio.Future[str] = loop.create_future()

    def settle(result: str, error: Exception | None) -> None:
        if future.done():  # cancelled
            return
        if error is None:
            future.set_result(result)
        else:
            future.set_exception(error)

    def work() -> None:
        result, failure = "", None
        try:
            result = function()
        except Exception as error:
            failure = error
        with contextlib.suppress(RuntimeError):  # the loop is closed
            loop.call_soon_threadsafe(settle, result, failure)

    threading.Thread(target=work, daemon=True, name="registry").start()
    return await future
