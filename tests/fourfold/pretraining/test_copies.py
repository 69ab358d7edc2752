"""Batches that are copied to a GPU one ahead. Streams are stand-ins that write down what they are asked, in order."""

import sys
from contextlib import contextmanager
from dataclasses import replace
from itertools import count, islice
from pathlib import Path

import pytest
import torch

from fourfold.data.cursor import Cursor
from fourfold.pretraining import copies
from fourfold.pretraining import pretrain as module
from fourfold.pretraining.copies import CopiedBatch, copied_ahead
from fourfold.training.run_context import RunContext

sys.path.insert(0, str(Path(__file__).parent))
from tiny_world import TinyTokenizers, tiny_config, write_world

GPU = torch.device("cuda", 0)


class Batch:
    def __init__(self, name, done):
        self.name, self.done = name, done

    def to(self, device, non_blocking):
        assert device == GPU and non_blocking
        self.done.append(f"copy {self.name}")
        return Batch(f"copy of {self.name}", self.done)

    def record_stream(self, stream):
        self.done.append(f"{stream.name} keeps {self.name}")


class Stream:
    def __init__(self, name, done):
        self.name, self.done, self.events = name, done, count()

    def record_event(self):
        return f"event {next(self.events)}"

    def wait_event(self, event):
        self.done.append(f"{self.name} waits for {event}")


@pytest.fixture
def done(monkeypatch):
    found, current = [], []

    @contextmanager
    def inside(stream):
        current.append(stream.name)
        yield
        assert current.pop() == stream.name

    monkeypatch.setattr(copies.torch.cuda, "Stream", lambda device: Stream("side", found))
    monkeypatch.setattr(copies.torch.cuda, "stream", inside)
    monkeypatch.setattr(copies.torch.cuda, "current_stream", lambda device: Stream("main", found))
    return found


def endless(done):
    def batches(start):
        try:
            for index in count(start.offset):
                yield Batch(index, done), Cursor(offset=index + 1)
        finally:
            done.append("closed")

    return batches


def test_next_batch_is_copied_before_a_step_and_only_its_own_copy_is_awaited(done):
    source = copied_ahead(endless(done), GPU)(Cursor(offset=5))
    batch, cursor = next(source)
    assert isinstance(batch, CopiedBatch) and (batch.host.name, batch.copy.name) == (5, "copy of 5") and cursor.offset == 6
    assert done == ["copy 5", "copy 6", "main waits for event 0", "main keeps copy of 5"]
    batch, cursor = next(source)
    assert (batch.host.name, cursor.offset) == (6, 7)
    assert done[4:] == ["copy 7", "main waits for event 1", "main keeps copy of 6"]
    source.close()
    assert done[-1] == "closed"


def test_on_a_cpu_the_batches_are_handed_on():
    batches = endless([])
    assert copied_ahead(batches, torch.device("cpu")) is batches
    assert [cursor.offset for _, cursor in islice(batches(Cursor()), 2)] == [1, 2]


def test_steps_compute_on_the_copy_and_count_on_the_batch_in_main_memory(tmp_path, monkeypatch):
    def run(name):
        config = tiny_config(total_tokens=2 * 3 * 18, log_every=1, validate_every=2)
        module.pretrain(
            *write_world(tmp_path / name / "world"), TinyTokenizers(), config, RunContext(7, tmp_path / name / "run")
        )
        return (tmp_path / name / "run" / "history.json").read_bytes()

    def copied(batches, device):
        def source(start):
            for batch, cursor in batches(start):
                yield CopiedBatch(replace(batch, input_token_BN=torch.zeros_like(batch.input_token_BN)), batch), cursor

        return source

    plain = run("plain")
    monkeypatch.setattr(module, "copied_ahead", copied)
    assert run("copied") == plain
