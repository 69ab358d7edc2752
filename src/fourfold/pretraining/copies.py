"""Batches on a GPU before they are needed: the next one is copied while the current step computes."""

from collections.abc import Callable, Iterator
from contextlib import closing
from typing import NamedTuple

import torch

from fourfold.data.cursor import Cursor
from fourfold.model.batch import MaskedBatch

Batches = Iterator[tuple[MaskedBatch, Cursor]]


class CopiedBatch(NamedTuple):
    """A batch in main memory, where counting it waits for nothing, and the same on the device."""

    host: MaskedBatch
    copy: MaskedBatch


def copied_ahead(
    batches: Callable[[Cursor], Batches], device: torch.device
) -> Callable[[Cursor], Iterator[tuple[MaskedBatch | CopiedBatch, Cursor]]]:
    """Return a source of the same batches in the same order, copied to `device` one batch ahead if it is a GPU.

    Copies are asynchronous only from page-locked memory (`Reader.pin_memory`). The device holds two batches at a time.

    Args:
        batches: the endless batches after a cursor, each with the cursor after it.
        device: where the steps are computed; for a CPU, `batches` itself is returned.
    """
    return (lambda start: _ahead(batches(start), device)) if device.type == "cuda" else batches


def _ahead(batches: Batches, device: torch.device) -> Iterator[tuple[CopiedBatch, Cursor]]:
    copying = torch.cuda.Stream(device)

    def begin() -> tuple[CopiedBatch, Cursor, torch.cuda.Event]:
        batch, cursor = next(batches)
        with torch.cuda.stream(copying):
            copy = batch.to(device, non_blocking=True)
            return CopiedBatch(batch, copy), cursor, copying.record_event()

    with closing(batches):  # type: ignore[type-var]  # a generator, whose workers end with it
        following = begin()
        while True:
            (batch, cursor, copied), following = following, begin()
            computing = torch.cuda.current_stream(device)
            computing.wait_event(copied)
            # its memory belongs to the other stream, which must not use it again before the step has ended
            batch.copy.record_stream(computing)
            yield batch, cursor
