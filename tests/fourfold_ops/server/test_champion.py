"""Following an alias: the server ends at once, whatever the registry does."""

import asyncio
import threading
import time
from types import SimpleNamespace

from fourfold_ops.server.champion import Follower

BLOCKED_SECONDS = 120


def test_registry_that_does_not_answer_does_not_delay_the_end(monkeypatch):
    asked, release = threading.Event(), threading.Event()

    def version():
        asked.set()
        release.wait(BLOCKED_SECONDS)
        return "1"

    async def loaded(self, number):
        return None

    async def serve():
        follower = Follower(SimpleNamespace(name="echo", alias="champion", version=version), None, None, {})
        task = asyncio.ensure_future(follower.run("1", 0.01, lambda: None))
        while not asked.is_set():
            await asyncio.sleep(0.01)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)

    monkeypatch.setattr(Follower, "_load", loaded)
    began = time.monotonic()
    try:
        asyncio.run(serve())
        assert time.monotonic() - began < BLOCKED_SECONDS / 2
    finally:
        release.set()


def test_error_of_the_registry_is_logged_and_the_version_stays(monkeypatch, caplog):
    numbers, loads = iter([ValueError("away"), "1", "2"]), []

    def version():
        found = next(numbers, "2")
        if isinstance(found, Exception):
            raise found
        return found

    async def loaded(self, number):
        loads.append(number)

    async def serve():
        follower = Follower(SimpleNamespace(name="echo", alias="champion", version=version), None, None, {})
        task = asyncio.ensure_future(follower.run("1", 0.01, lambda: None))
        deadline = time.monotonic() + BLOCKED_SECONDS
        while len(loads) < 2 and time.monotonic() < deadline:
            await asyncio.sleep(0.01)
        task.cancel()

    monkeypatch.setattr(Follower, "_load", loaded)
    asyncio.run(serve())
    assert loads == ["1", "2"] and "Cannot read echo@champion: away" in caplog.text
