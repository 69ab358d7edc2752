"""Requests wait in a bounded queue; whatever waits when the model is free is answered as one batch."""

import asyncio
import logging
import math
import time
from collections import deque
from dataclasses import dataclass, field

from fourfold_ops.errors import UserError
from fourfold_ops.server.metrics import Metrics
from fourfold_ops.server.process import ModelProcess, ProcessDiedError

logger = logging.getLogger(__name__)
Answer = tuple[int, bytes]
MAX_ATTEMPTS = 2  # a request during which the process died is repeated once, alone
SECONDS_BETWEEN_STARTS = 5.0
CRASHED = b'{"error": "The process of the model ended during this request. Send a smaller one, or see the log of the server."}'


@dataclass(frozen=True)
class Limits:
    """What the server accepts."""

    max_batch: int = 16  # requests answered at once
    max_queue: int = 512  # requests that wait
    max_queue_bytes: int = 256_000_000  # of their bodies together
    max_body_bytes: int = 10_000_000
    max_seconds: float = 120.0  # from the request to its answer


class QueueFullError(Exception):
    """Raised for a request that finds the queue full; `seconds` is when to try again."""

    def __init__(self, seconds: int) -> None:
        super().__init__(f"Too many requests wait. Try again in {seconds} s.")
        self.seconds = seconds


@dataclass
class Job:
    """One waiting request."""

    route: str
    body: bytes
    answer: asyncio.Future[Answer]
    attempts: int = 0
    began: float = field(default_factory=time.monotonic)


class Batcher:
    """Passes requests to the process of the model; `move` replaces the process between two batches."""

    def __init__(self, limits: Limits, metrics: Metrics) -> None:
        self.limits, self._metrics = limits, metrics
        self.process: ModelProcess | None = None
        self._next: ModelProcess | None = None
        self._jobs: deque[Job] = deque()
        self._bytes = 0
        self._wake = asyncio.Event()
        self._seconds_per_request = 0.1  # a running average, for Retry-After
        self._stopping: asyncio.Future[None] | None = None

    async def submit(self, route: str, body: bytes) -> Answer:
        """Return the answer to one request.

        Raises:
            QueueFullError: Too many requests wait.
            TimeoutError: There is no answer within `max_seconds`.
        """
        if len(self._jobs) >= self.limits.max_queue or self._bytes + len(body) > self.limits.max_queue_bytes:
            raise QueueFullError(max(1, math.ceil(len(self._jobs) * self._seconds_per_request)))
        job = Job(route, body, asyncio.get_running_loop().create_future())
        self._put(job)
        return await asyncio.wait_for(job.answer, self.limits.max_seconds)  # late jobs are canceled, and skipped

    def move(self, process: ModelProcess) -> None:
        """Use another process, which is ready, from the next batch on."""
        self._next = process
        self._wake.set()

    async def run(self) -> None:
        """Answer requests until the task is canceled."""
        while True:
            await self._wake.wait()
            if self._next is not None:
                await self._switch()
            batch = self._take() if self.process is not None else []
            if batch:
                await self._answer(batch)
            elif self.process is None or not self._jobs:
                self._wake.clear()

    async def close(self) -> None:
        """Stop the processes of the model."""
        for process in (self.process, self._next):
            if process is not None:
                await process.stop()
        if self._stopping is not None:
            await self._stopping

    def _put(self, job: Job) -> None:
        self._jobs.append(job)
        self._bytes += len(job.body)
        self._metrics.queue.set(len(self._jobs))
        self._wake.set()

    def _take(self) -> list[Job]:
        """Return the next batch; a request that is repeated is alone in it."""
        batch: list[Job] = []
        while self._jobs and len(batch) < self.limits.max_batch:
            if batch and self._jobs[0].attempts:
                break
            job = self._jobs.popleft()
            self._bytes -= len(job.body)
            if not job.answer.done():
                batch.append(job)
            if batch and job.attempts:
                break
        self._metrics.queue.set(len(self._jobs))
        return batch

    async def _answer(self, batch: list[Job]) -> None:
        assert self.process is not None
        began = time.monotonic()
        try:
            answers = await self.process.answer([(job.route, job.body) for job in batch])
        except ProcessDiedError:
            await self._recover(batch)
            return
        self._seconds_per_request = 0.8 * self._seconds_per_request + 0.2 * (time.monotonic() - began) / len(batch)
        self._metrics.batch_size.observe(len(batch))
        for job, answer in zip(batch, answers, strict=True):
            if not job.answer.done():
                job.answer.set_result(answer)

    async def _recover(self, batch: list[Job]) -> None:
        """Start the process again; each request of the batch is repeated alone, or fails if it was."""
        logger.error("The process of the model ended during %d requests. Starting it again.", len(batch))
        self._metrics.crashes.inc()
        assert self.process is not None
        dead, self.process = self.process, None
        await dead.stop()
        for job in reversed(batch):
            job.attempts += 1
            if job.attempts >= MAX_ATTEMPTS and not job.answer.done():
                job.answer.set_result((500, CRASHED))
            elif not job.answer.done():
                self._jobs.appendleft(job)
                self._bytes += len(job.body)
        while self._next is None:
            try:
                await dead.start()
            except UserError as error:
                logger.error("%s", error)
                await asyncio.sleep(SECONDS_BETWEEN_STARTS)
                continue
            if self._next is None:
                self._next = dead
            else:  # a new version came meanwhile
                await dead.stop()
        self._wake.set()

    async def _switch(self) -> None:
        old, self.process, self._next = self.process, self._next, None
        assert self.process is not None
        self._metrics.show_model(self.process.name, self.process.number)
        if old is not None:
            logger.info("Moved from version %s to version %s of %s.", old.number, self.process.number, self.process.name)
            self._stopping = asyncio.ensure_future(old.stop())  # the next batch does not wait for it
