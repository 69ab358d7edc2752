"""Mixtures of data sets: exact shares, exact resume, and each data set by its own rules."""

import sys
from dataclasses import fields
from itertools import islice
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from fourfold.data.cursor import Cursor
from fourfold.masking.config import MaskingConfig, MixtureComponent
from fourfold.masking.masker import Masker
from fourfold.masking.spans import SentinelIds
from fourfold.model.batch import MaskedBatch, concatenate
from fourfold.model.config import ModalityConfig, ModelConfig
from fourfold.pretraining import mixture
from fourfold.pretraining.config import DatasetConfig
from fourfold.pretraining.loader import BatchOrder, Reader, TokenLoader, TokenSplit
from fourfold.pretraining.mixture import PERIOD, MixtureLoader, shares_of

sys.path.insert(0, str(Path(__file__).parent))
from tiny_world import write_world

MODEL = ModelConfig(
    modalities=(
        ModalityConfig(name="rgb", kind="pixels", grid=(2, 2)),
        ModalityConfig(name="tok_depth", kind="grid", vocabulary_size=400, grid=(2, 2)),
        ModalityConfig(name="tok_semseg", kind="grid", vocabulary_size=9, grid=(2, 2)),
        ModalityConfig(name="caption", kind="sequence", vocabulary_size=60, max_length=11),
    ),
    dim=16,
    num_heads=2,
)
ALL = MixtureComponent(
    alpha_in={"rgb": 1.0, "tok_depth": 1.0, "caption": 1.0}, alpha_target={"tok_depth": 1.0, "tok_semseg": 1.0, "caption": 1.0}
)


class Numbered:
    """A stream whose sample number n of data set d is one slot that says so."""

    def __init__(self, number: int, num_samples: int) -> None:
        self.number, self.num_samples = number, num_samples

    def batches(self, start):
        count = start.epoch * self.num_samples + start.offset
        while True:
            slot = torch.full((1, 1), count)
            yield MaskedBatch(torch.full((1, 1), self.number), slot, slot, slot, slot, slot, slot), Cursor()
            count += 1


def seen(loader, batches, start=None):
    """Return (data set, number of its sample) of each sample."""
    parts = [batch for batch, _ in islice(loader.batches(start or Cursor()), batches)]
    return [
        (int(d), int(n)) for part in parts for d, n in zip(part.input_modality_BN[:, 0], part.input_token_BN[:, 0], strict=True)
    ]


@given(st.lists(st.floats(0.01, 100), min_size=1, max_size=5), st.integers(1000, 5000))
def test_shares_sum_up_and_differ_from_the_weights_by_less_than_one(weights, total):
    try:
        counts = shares_of(weights, total)
    except ValueError:
        assert min(weights) / sum(weights) * total < 1
        return
    assert counts.sum() == total
    assert np.abs(counts - np.array(weights) / sum(weights) * total).max() < 1


def test_every_period_has_exact_shares_and_each_data_set_stays_in_order():
    loader = MixtureLoader([Numbered(0, 7), Numbered(1, 11), Numbered(2, 500)], [0.6, 0.2, 0.2], 8, seed=3)
    samples = seen(loader, PERIOD // 8 * 2)
    first = [d for d, _ in samples[:PERIOD]]
    assert [first.count(d) for d in range(3)] == [600, 200, 200]
    for number in range(3):
        own = [n for d, n in samples if d == number]
        assert own == list(range(len(own)))
    assert first != sorted(first) and first != [d for d, _ in samples[PERIOD:]]


@settings(max_examples=40)
@given(st.integers(0, 3000), st.integers(1, 16))
def test_a_resumed_mixture_continues_in_every_data_set(skipped, batch_size):
    def loader():
        return MixtureLoader([Numbered(0, 7), Numbered(1, 500)], [3, 1], batch_size, seed=0)

    start = Cursor(0, skipped)
    resumed = seen(loader(), 3, start)
    counts = [sum(d == number for d in map(loader().source_of, range(skipped))) for number in range(2)]
    assert loader().taken_before(skipped).tolist() == counts
    for number, count in enumerate(counts):
        own = [n for d, n in resumed if d == number]
        assert own == list(range(count, count + len(own)))


def test_shares_of_processes_make_up_the_batch_of_one():
    whole = next(iter(MixtureLoader([Numbered(0, 9), Numbered(1, 9)], [1, 1], 6, 0)))[0]
    shares = [
        next(iter(MixtureLoader([Numbered(0, 9), Numbered(1, 9)], [1, 1], 6, 0, slice(*ends))))[0] for ends in ((0, 2), (2, 6))
    ]
    assert torch.equal(torch.cat([share.input_token_BN for share in shares]), whole.input_token_BN)


def loader_of(world, masking, only=None, images=True):
    tokens, pixels = world
    masker = Masker(masking, MODEL, SentinelIds(3, tuple(range(5, 20))), only)
    return TokenLoader(TokenSplit(tokens, pixels if images else None, "train"), masker, BatchOrder(1, seed=0))


def test_each_data_set_keeps_its_modalities_and_budgets(tmp_path):
    world = write_world(tmp_path)
    small = MaskingConfig(components=(ALL,), input_tokens=3, target_tokens=4)
    large = MaskingConfig(components=(ALL,), min_input_tokens=2, input_tokens=9, target_tokens=12)
    loader = MixtureLoader(
        [loader_of(world, small, ("tok_depth", "tok_semseg"), images=False), loader_of(world, large)], [1, 1], 8, seed=0
    )
    of_first = []
    for number, (batch, _) in enumerate(islice(loader, 12)):
        assert batch.input_modality_BN.shape == (8, 9) and batch.target_modality_BM.shape == (8, 12)
        assert batch.pixels_BHWC.shape == (8, 8, 8, 3)
        sources = torch.tensor([loader.source_of(8 * number + row) for row in range(8)])
        first = batch.input_modality_BN[sources == 0]
        assert set(first.unique().tolist()) <= {-1, 1, 2}
        assert not (first[:, 3:] >= 0).any() and not (batch.target_modality_BM[sources == 0][:, 4:] >= 0).any()
        assert not batch.pixels_BHWC[sources == 0].any()
        of_first.append(int((sources == 0).sum()))
    assert 20 < sum(of_first) < 76


def test_a_data_set_without_images_gets_one_black_patch(tmp_path):
    masking = MaskingConfig(components=(ALL,), input_tokens=9, target_tokens=12)
    batch, _ = next(iter(loader_of(write_world(tmp_path), masking, ("tok_depth", "tok_semseg"))))
    assert batch.pixels_BHWC.shape == (1, 16, 16, 3) and not batch.pixels_BHWC.any()
    assert not (batch.input_modality_BN == MODEL.index("rgb")).any()


@pytest.mark.parametrize("num_workers", [1, 3])
def test_workers_do_not_change_batches_from_any_cursor(tmp_path, monkeypatch, num_workers):
    monkeypatch.setattr(mixture, "READ_AT_ONCE", 8)  # units of two batches
    world = write_world(tmp_path)
    masking = MaskingConfig(components=(ALL,), input_tokens=9, target_tokens=12)

    def batches(start: Cursor, **reading) -> list:
        streams = [loader_of(world, masking, ("tok_depth", "tok_semseg"), images=False), loader_of(world, masking)]
        loader = MixtureLoader(streams, [1, 2], 4, 0, slice(1, 4), Reader(1, 2, **reading))
        return list(islice(loader.batches(start), 23))

    wanted = batches(Cursor())
    assert wanted[0][0].batch_size == 3
    for start in (0, 7):
        found = batches(Cursor(0, 4 * start), num_workers=num_workers)
        assert [cursor for _, cursor in found[: 23 - start]] == [cursor for _, cursor in wanted[start:]]
        for (batch, _), (other, _) in zip(found, wanted[start:], strict=False):
            for field in fields(MaskedBatch):
                one, two = getattr(batch, field.name), getattr(other, field.name)
                assert (one is None and two is None) or torch.equal(one, two)


def test_vectors_are_padded_and_must_have_equal_widths():
    slot = torch.zeros(1, 1, dtype=torch.int64)
    plain = [slot] * 7
    with pytest.raises(ValueError, match="differ in the last axis of vectors_BLE"):
        concatenate([MaskedBatch(*plain, None, torch.zeros(1, 4, width)) for width in (8, 16)])
    vectors = concatenate(
        [MaskedBatch(*plain, None, torch.ones(1, rows, 2)) for rows in (1, 3)] + [MaskedBatch(*plain)]
    ).vectors_BLE
    assert vectors.shape == (3, 3, 2) and vectors.sum((1, 2)).tolist() == [2, 6, 0]


def test_invalid_weights_are_rejected():
    with pytest.raises(ValueError, match="gets no sample of 1000"):
        shares_of([1, 1e-6], PERIOD)
    with pytest.raises(ValueError, match="greater than 0"):
        DatasetConfig(weight=0)
    with pytest.raises(ValueError, match="one weight per data set"):
        MixtureLoader([Numbered(0, 9)], [1, 1], 2, 0)
