import itertools
import shutil
import sys
import tracemalloc
from pathlib import Path

import fsspec
import numpy as np
import pytest
import torch

from fourfold.data.cursor import Cursor
from fourfold.data.manifests import survey, write_manifest
from fourfold.data.shards import ShardSet, finish_split, read_members, shard_name, write_columns, write_shard, write_tar
from fourfold.masking.masker import Masker
from fourfold.model.batch import concatenate
from fourfold.pretraining.loader import BatchOrder, Reader, TokenLoader, TokenSplit, fixed_batches
from fourfold.pretraining.pretrain import model_config, sentinel_ids

sys.path.insert(0, str(Path(__file__).parent))
from tiny_world import TinyTokenizers, tiny_config, write_world


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    return write_world(tmp_path_factory.mktemp("world"))


def loader(world, split="train", batch_size=3, seed=0, reader=None):
    tokens, images = world
    masker = Masker(
        tiny_config().masking, model_config(tiny_config().model, TinyTokenizers(), images), sentinel_ids(TinyTokenizers())
    )
    return TokenLoader(TokenSplit(tokens, images, split), masker, BatchOrder(batch_size, seed, shards_at_once=2), reader)


def numbers(batch):
    """Return the numbers of the samples of a batch, which are the values of their pixels."""
    return batch.pixels_BHWC[:, 0, 0, 0].tolist()


def same(one, other):
    names = ("input_modality_BN", "input_position_BN", "input_token_BN", "target_modality_BM", "target_id_BM", "pixels_BHWC")
    return all(torch.equal(getattr(one, name), getattr(other, name)) for name in names)


@pytest.mark.parametrize("batch_size", [3, 7, 16])
def test_the_stream_resumes_bit_for_bit_from_any_cursor(world, batch_size):
    stream = list(itertools.islice(loader(world, batch_size=batch_size), 30))
    for index in range(0, 24, 5):
        following = itertools.islice(loader(world, batch_size=batch_size).batches(stream[index][1]), 3)
        for (batch, cursor), (expected, expected_cursor) in zip(following, stream[index + 1 :], strict=False):
            assert cursor == expected_cursor and same(batch, expected)


def test_an_epoch_contains_each_sample_at_most_once_and_epochs_differ(world):
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


def test_the_order_depends_on_the_seed_but_not_on_the_cache(world):
    first = [numbers(batch) for batch, _ in itertools.islice(loader(world), 20)]
    assert [numbers(batch) for batch, _ in itertools.islice(loader(world, reader=Reader(cache_bytes=0)), 20)] == first
    assert [numbers(batch) for batch, _ in itertools.islice(loader(world, seed=1), 20)] != first


def test_the_cache_keeps_shards_up_to_its_limit(world):
    cached, uncached = loader(world), loader(world, reader=Reader(cache_bytes=1500))
    for each in (cached, uncached):
        list(itertools.islice(each, 30))
    held = {**cached._shards.cached, **cached._shards.active}
    assert len(held) == 7 and cached._shards.size == sum(shard.num_bytes for shard in cached._shards.cached.values())
    assert uncached._shards.size <= 1500 and len(uncached._shards.cached) < 7


def test_fixed_batches_are_equal_at_every_call(world):
    once, again = (fixed_batches(loader(world, "val"), 9) for _ in range(2))
    assert len(once) == 3 and all(same(a, b) for a, b in zip(once, again, strict=True))


def test_every_crop_is_drawn(tmp_path):
    world = write_world(tmp_path, num_crops=3)
    assert len(list(itertools.islice(loader(world), 5))) == 5


def test_each_epoch_draws_one_of_the_captions_of_a_sample(tmp_path):
    """Sample i has 1 to 4 captions; caption k has the id 20 + k, which no other modality has. Then there are rows of zeros."""
    tokens, images = write_world(tmp_path, num_train=12)
    counts = {}
    for shard in tokens.shard_names("train"):
        path, members = tmp_path / "tokens" / "train" / "caption" / shard, []
        for key, _ in read_members(path):
            number = int(key.removeprefix("train-"))
            counts[number] = number % 4 + 1
            ids = np.zeros((4, 8), np.int16)
            ids[: counts[number], 0] = 20 + np.arange(counts[number])
            members.append((key, ids))
        path.unlink()
        write_shard(path, members, "caption")
    finish_split(tmp_path / "tokens", "train", tokens.modalities("train"))
    seen = {number: set() for number in counts}
    for batch, cursor in loader((tokens, images)):
        if cursor.epoch == 30:
            break
        for row, number in enumerate(numbers(batch)):
            ids = torch.cat([batch.input_token_BN[row], batch.target_id_BM[row]])
            found = {int(i) for i in ids if 20 <= i < 24}
            assert len(found) <= 1
            seen[number] |= found
    assert {number: {20 + k for k in range(count)} for number, count in counts.items()} == seen
    again = list(itertools.islice(loader((tokens, images)), 9))
    for (one, _), (other, _) in zip(again, loader((tokens, images)).batches(Cursor()), strict=False):
        assert same(one, other)


def test_a_split_that_is_too_small_or_not_aligned_is_rejected(world, tmp_path):
    with pytest.raises(ValueError, match="Lower batch_size"):
        loader(world, batch_size=41)
    pixels = [("another-key", world[1].read("train", ["rgb"], shard_name(0))[0]["rgb"])]
    write_columns(tmp_path, "train", shard_name(0), {"rgb": pixels})
    finish_split(tmp_path, "train", ["rgb"])
    with pytest.raises(ValueError, match=r"does not have the same shards .*shard-00001.tar"):
        loader((world[0], ShardSet(tmp_path)))
    with pytest.raises(ValueError, match=r"batch of 3 cannot be shared by 4 ranks. Raise batch_size"):
        loader(world, reader=Reader(num_processes=4))


@pytest.mark.parametrize("num_workers", [1, 4])
@pytest.mark.parametrize("shards", [1, 3, 7])
def test_workers_do_not_change_batches_even_with_fewer_shards(tmp_path, num_workers, shards):
    world = write_world(tmp_path, num_train=6 * shards, num_crops=2)
    alone = list(itertools.islice(loader(world), 25))
    start = alone[4][1]
    together = list(itertools.islice(loader(world, reader=Reader(num_workers=num_workers)).batches(start), 20))
    assert len(together) == 20
    for (batch, cursor), (expected, expected_cursor) in zip(together, alone[5:], strict=True):
        assert cursor == expected_cursor and same(batch, expected)


def test_an_error_in_a_worker_is_raised_in_the_training_process(world, tmp_path):
    copy = shutil.copytree(world[0].root, tmp_path / "tokens")
    (copy / "train" / "det" / shard_name(2)).write_bytes(b"broken")
    with pytest.raises(ValueError, match=r"det/shard-00002.tar is damaged"):
        list(itertools.islice(loader((ShardSet(copy), world[1]), reader=Reader(num_workers=2)), 26))


@pytest.mark.parametrize(("batch_size", "world_size"), [(3, 2), (8, 2), (7, 3), (16, 4), (150, 4)])
def test_shares_of_ranks_make_up_the_batches_of_one(tmp_path, batch_size, world_size):
    world = write_world(tmp_path, num_train=250 if batch_size > 64 else 40)
    alone = list(itertools.islice(loader(world, batch_size=batch_size), 9))
    readers = [Reader(rank, world_size) for rank in range(world_size)]
    streams = [itertools.islice(loader(world, batch_size=batch_size, reader=reader), 9) for reader in readers]
    for (expected, cursor), *shares in zip(alone, *streams, strict=True):
        assert [share[1] for share in shares] == [cursor] * world_size
        assert same(concatenate([share[0] for share in shares]), expected)


def test_resuming_with_other_ranks_reads_every_sample_once(world):
    seen, cursor = [], Cursor()
    for world_size in (1, 3, 2):
        readers = [Reader(rank, world_size) for rank in range(world_size)]
        streams = [loader(world, batch_size=4, reader=reader).batches(cursor) for reader in readers]
        for _ in range(3 if world_size > 1 else 4):
            shares = [next(stream) for stream in streams]
            seen += [number for batch, _ in shares for number in numbers(batch)]
            cursor = shares[0][1]
    assert cursor == Cursor(0, 40) and sorted(seen) == list(range(40))


def test_shards_at_a_url_give_the_same_batches(world):
    memory = fsspec.filesystem("memory")
    for name, shards in zip(("tokens", "images"), world, strict=True):
        memory.put(str(shards.root), f"/bucket/{name}", recursive=True)
    behind_a_url = ShardSet("memory://bucket/tokens"), ShardSet("memory://bucket/images")
    assert behind_a_url[0].splits() == ["train", "val"] and behind_a_url[0].digest() == world[0].digest()
    for (batch, cursor), (expected, other) in itertools.islice(zip(loader(behind_a_url), loader(world), strict=False), 15):
        assert cursor == other and same(batch, expected)
    memory.pipe_file("/bucket/images/train/rgb/shard-00003.tar", b"cut")
    with pytest.raises(ValueError, match=r"memory://bucket/images/train/rgb/shard-00003.tar is damaged"):
        list(itertools.islice(loader(behind_a_url), 14))
    with pytest.raises(ValueError, match=r"bolt://x/y cannot be opened"):
        ShardSet("bolt://x/y")


def test_the_error_for_differing_keys_names_key_and_shard(world, tmp_path):
    """Whole tars with right checksums, but a manifest written for another order: only reading can tell."""
    copy = shutil.copytree(world[0].root, tmp_path / "tokens")
    folder, name = copy / "train" / "tok_semseg", shard_name(1)
    members = read_members(folder / name)
    write_tar(folder / name, [(key, "npy", content) for key, content in members[::-1]])
    keys = [key for key, _ in members]
    write_manifest(folder, survey(folder, "tok_semseg"))
    with pytest.raises(ValueError, match=rf"tok_semseg/{name}: not aligned .* sample 0 is '{keys[-1]}', not '{keys[0]}'"):
        list(itertools.islice(loader((ShardSet(copy), world[1])), 14))


def test_memory_stays_flat_over_an_epoch(tmp_path):
    reading = iter(loader(write_world(tmp_path, num_train=240), batch_size=4, reader=Reader(cache_bytes=0)))
    next(reading)
    tracemalloc.start()
    peaks = []
    for _ in range(3):
        tracemalloc.reset_peak()
        for _ in range(18):
            next(reading)
        peaks.append(tracemalloc.get_traced_memory()[1])
    tracemalloc.stop()
    assert peaks[2] < 2 * peaks[0]  # what was read and kept would make it three times as much
