import itertools
import sys
from pathlib import Path

import pytest
import torch

from fourfold.data.cursor import Cursor
from fourfold.data.loader import TokenLoader, fixed_batches
from fourfold.data.shards import ShardSet, finish_split, shard_name, write_columns
from fourfold.masking.masker import Masker
from fourfold.training.pretrain import model_config, special_ids

sys.path.insert(0, str(Path(__file__).parents[1] / "training"))
from tiny_world import TinyTokenizers, tiny_config, write_world


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    return write_world(tmp_path_factory.mktemp("world"))


def loader(world, split="train", batch_size=3, seed=0, **settings):
    tokens, images = world
    masker = Masker(
        tiny_config().masking, model_config(tiny_config().model, TinyTokenizers(), images), special_ids(TinyTokenizers())
    )
    return TokenLoader(tokens, images, split, batch_size, masker, seed, **{"shards_at_once": 2} | settings)


def numbers(batch):
    """Which samples a batch holds, told by their pixels."""
    return batch.pixels_BHWC[:, 0, 0, 0].tolist()


def same(one, other):
    names = ("input_modality_BN", "input_position_BN", "input_token_BN", "target_modality_BM", "target_id_BM", "pixels_BHWC")
    return all(torch.equal(getattr(one, name), getattr(other, name)) for name in names)


@pytest.mark.parametrize("batch_size", [3, 7, 16])
def test_from_any_cursor_the_stream_goes_on_bit_for_bit(world, batch_size):
    stream = list(itertools.islice(loader(world, batch_size=batch_size), 30))
    for index in range(0, 24, 5):
        following = itertools.islice(loader(world, batch_size=batch_size).batches(stream[index][1]), 3)
        for (batch, cursor), (expected, expected_cursor) in zip(following, stream[index + 1 :], strict=False):
            assert cursor == expected_cursor and same(batch, expected)


def test_an_epoch_hands_out_each_sample_at_most_once_and_epochs_differ(world):
    stream = list(itertools.islice(loader(world), 26))
    epochs = [[n for batch, cursor in stream if cursor.epoch == epoch for n in numbers(batch)] for epoch in (0, 1)]
    assert all(len(set(epoch)) == len(epoch) == 39 for epoch in epochs)
    assert epochs[0] != epochs[1]
    assert stream[12][1] == Cursor(0, 39) and stream[13][1] == Cursor(1, 3)


def test_tokens_and_pixels_of_a_slot_belong_to_one_sample(world):
    depth = 1  # the index of tok_depth in the model
    for batch, _ in itertools.islice(loader(world), 20):
        for number, modality, token in zip(numbers(batch), batch.input_modality_BN, batch.input_token_BN, strict=True):
            assert set(token[modality == depth].tolist()) <= {number}
        for number, modality, target in zip(numbers(batch), batch.target_modality_BM, batch.target_id_BM, strict=True):
            assert set(target[modality == depth].tolist()) <= {number}


def test_the_order_depends_on_the_seed_and_not_on_the_cache(world):
    first = [numbers(batch) for batch, _ in itertools.islice(loader(world), 20)]
    assert [numbers(batch) for batch, _ in itertools.islice(loader(world, cache_bytes=0), 20)] == first
    assert [numbers(batch) for batch, _ in itertools.islice(loader(world, seed=1), 20)] != first


def test_shards_are_read_once_when_the_cache_holds_them_and_never_beyond_its_limit(world):
    cached, uncached = loader(world), loader(world, cache_bytes=1500)
    for each in (cached, uncached):
        list(itertools.islice(each, 30))
    assert len(cached._cache.entries) == 7
    assert uncached._cache.size <= 1500 and len(uncached._cache.entries) < 7


def test_fixed_batches_are_the_same_at_every_call(world):
    once, again = (fixed_batches(loader(world, "val"), 9) for _ in range(2))
    assert len(once) == 3 and all(same(a, b) for a, b in zip(once, again, strict=True))


def test_every_crop_is_drawn(tmp_path):
    world = write_world(tmp_path, num_crops=3)
    assert len(list(itertools.islice(loader(world), 5))) == 5


def test_a_split_that_is_too_small_or_not_aligned_is_refused(world, tmp_path):
    with pytest.raises(ValueError, match="Lower batch_size"):
        loader(world, batch_size=41)
    pixels = [("another-key", world[1].read("train", ["rgb"], shard_name(0))[0]["rgb"])]
    write_columns(tmp_path, "train", shard_name(0), {"rgb": pixels})
    finish_split(tmp_path, "train", ["rgb"])
    with pytest.raises(ValueError, match="do not hold the same keys"):
        loader((world[0], ShardSet(tmp_path)))
