"""The queue, with a stand-in for the process of the model."""

import asyncio
import json

import pytest

from fourfold_ops.errors import UserError
from fourfold_ops.server.batching import Batcher, Limits, QueueFullError
from fourfold_ops.server.metrics import Metrics
from fourfold_ops.server.process import ProcessDiedError


class Process:
    """Answers with the body; dies during a request "crash"; waits while `gate` is closed."""

    name = "echo"

    def __init__(self, number: str = "1", fails_to_start: int = 0) -> None:
        self.number, self.batches, self.starts, self.stopped = number, [], 0, False
        self.gate = asyncio.Event()
        self.gate.set()
        self._fails_to_start = fails_to_start

    async def start(self):
        self.starts += 1
        if self.starts <= self._fails_to_start:
            raise UserError("The model cannot be loaded.", "Try again.")

    async def answer(self, requests):
        self.batches.append([body for _, body in requests])
        await self.gate.wait()
        if any(body == b"crash" for _, body in requests):
            raise ProcessDiedError
        return [(200, body + self.number.encode()) for _, body in requests]

    async def stop(self):
        self.stopped = True


def with_batcher(scenario, limits=None):
    async def main():
        batcher = Batcher(limits or Limits(max_batch=4), Metrics())
        process = Process()
        batcher.move(process)
        task = asyncio.ensure_future(batcher.run())
        try:
            await asyncio.wait_for(scenario(batcher, process), 20)
        finally:
            task.cancel()
            await batcher.close()
        assert process.stopped

    asyncio.run(main())


def submitted(batcher, *bodies):
    return [asyncio.ensure_future(batcher.submit("predict", body)) for body in bodies]


def test_waiting_requests_are_answered_together_in_order():
    async def scenario(batcher, process):
        process.gate.clear()
        first = submitted(batcher, b"0")
        await asyncio.sleep(0.01)
        others = submitted(batcher, *(str(i).encode() for i in range(1, 7)))
        await asyncio.sleep(0.01)
        process.gate.set()
        answers = await asyncio.gather(*first, *others)
        assert answers == [(200, f"{i}1".encode()) for i in range(7)]
        assert [len(batch) for batch in process.batches] == [1, 4, 2]

    with_batcher(scenario)


def test_full_queue_is_refused_with_a_time():
    async def scenario(batcher, process):
        process.gate.clear()
        waiting = submitted(batcher, b"a")
        await asyncio.sleep(0.01)
        waiting += submitted(batcher, b"b", b"c")
        await asyncio.sleep(0.01)
        with pytest.raises(QueueFullError) as full:
            await batcher.submit("predict", b"d")
        assert full.value.seconds >= 1
        process.gate.set()
        assert len(await asyncio.gather(*waiting)) == 3

    with_batcher(scenario, Limits(max_queue=2))


def test_bytes_that_wait_are_bounded():
    async def scenario(batcher, process):
        process.gate.clear()
        waiting = submitted(batcher, b"first")
        await asyncio.sleep(0.01)
        waiting += submitted(batcher, b"x" * 8)
        await asyncio.sleep(0.01)
        with pytest.raises(QueueFullError):
            await batcher.submit("predict", b"x" * 3)
        waiting += submitted(batcher, b"x" * 2)
        process.gate.set()
        await asyncio.gather(*waiting)

    with_batcher(scenario, Limits(max_queue_bytes=10))


def test_move_waits_for_the_batch_and_drops_nothing():
    async def scenario(batcher, process):
        process.gate.clear()
        before = submitted(batcher, b"a")
        await asyncio.sleep(0.01)
        new = Process("2")
        batcher.move(new)
        after = submitted(batcher, b"b")
        await asyncio.sleep(0.01)
        assert not process.stopped
        process.gate.set()
        assert await asyncio.gather(*before, *after) == [(200, b"a1"), (200, b"b2")]
        await asyncio.sleep(0.01)
        assert process.stopped and batcher.process is new

    with_batcher(scenario)


def test_crash_fails_only_the_request_that_caused_it(monkeypatch):
    async def scenario(batcher, process):
        process.gate.clear()
        first = submitted(batcher, b"a")
        await asyncio.sleep(0.01)
        others = submitted(batcher, b"b", b"crash", b"c")
        await asyncio.sleep(0.01)
        process.gate.set()
        answers = await asyncio.gather(*first, *others)
        assert [status for status, _ in answers] == [200, 200, 500, 200]
        assert "ended during this request" in json.loads(answers[2][1])["error"]
        assert process.batches == [[b"a"], [b"b", b"crash", b"c"], [b"b"], [b"crash"], [b"c"]]
        assert process.starts == 2

    with_batcher(scenario)


def test_process_that_does_not_start_is_tried_again(monkeypatch):
    monkeypatch.setattr("fourfold_ops.server.batching.SECONDS_BETWEEN_STARTS", 0.01)

    async def scenario(batcher, process):
        process._fails_to_start = 2
        crashed, later = submitted(batcher, b"crash", b"later")
        assert (await later, (await crashed)[0]) == ((200, b"later1"), 500)
        assert process.starts == 4  # two failures, then one start after each crash

    with_batcher(scenario)


def test_request_without_an_answer_ends_and_is_skipped():
    async def scenario(batcher, process):
        process.gate.clear()
        first = submitted(batcher, b"a")
        await asyncio.sleep(0.01)
        with pytest.raises(TimeoutError):
            await batcher.submit("predict", b"late")
        process.gate.set()
        with pytest.raises(TimeoutError):
            await first[0]
        assert await batcher.submit("predict", b"b") == (200, b"b1")
        assert process.batches == [[b"a"], [b"b"]]

    with_batcher(scenario, Limits(max_seconds=0.05))
