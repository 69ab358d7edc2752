"""All tokenizers together: training, saving, resuming, and pre-tokenizing shards."""

import shutil

import numpy as np
import pytest

from fourfold.data.captions import Captions
from fourfold.data.crops import CropConfig
from fourfold.data.shard_store import keep_at
from fourfold.data.shards import ShardSet, finish_split, read_members, write_shard
from fourfold.data.work_split import WorkSplit
from fourfold.tokenizers.config import TokenizersConfig
from fourfold.tokenizers.measures import codebook_metrics, measure_tokenizers
from fourfold.tokenizers.networks.config import VisualTokenizerConfig
from fourfold.tokenizers.pretokenizing import pretokenize
from fourfold.tokenizers.tokenizer_set import TokenizerSet
from fourfold.tokenizers.training.tokenizer_set import train_tokenizers
from fourfold.training.loop import _Loop
from fourfold.training.run_context import RunContext
from tests.fourfold.killing import files_of, kill_in_step

from .conftest import GRID, NUM_SAMPLES, SIZE, tiny_config

DENSE = ("rgb", "depth", "normal", "semseg", "clip")


def column(world: tuple[ShardSet, ShardSet], name: str, split: str = "val"):
    return world[name not in ("rgb", "caption")].load_column(split, name)


@pytest.mark.parametrize("name", DENSE)
def test_tokens_are_int16_and_decode_to_stored_dtype_and_shape(world, tokenizers, name):
    values = column(world, name)
    tokens = tokenizers.tokens(name, values)
    assert tokens.dtype == np.int16 and tokens.shape == (NUM_SAMPLES, GRID * GRID)
    assert tokens.min() >= 0 and tokens.max() < tokenizers.vocabulary_sizes()[f"tok_{name}"]
    decoded = tokenizers.decode(f"tok_{name}", tokens)
    assert decoded.dtype == values.dtype and decoded.shape == values.shape


def test_tokens_do_not_depend_on_the_batch(world, tokenizers):
    for name in DENSE:
        values = column(world, name)
        alone = np.concatenate([tokenizers.tokens(name, values[i : i + 1]) for i in range(len(values))])
        assert (alone == tokenizers.tokens(name, values)).mean() > 0.99  # sums of another order may turn a tie


def test_captions_and_boxes_survive_tokens(world, tokenizers):
    captions, boxes = column(world, "caption"), column(world, "det")
    assert tokenizers.decode("caption", tokenizers.tokens("caption", captions)) == captions
    decoded = tokenizers.decode("det", tokenizers.tokens("det", boxes))
    for found, truth in zip(decoded, boxes, strict=True):
        assert sorted(i["class_name"] for i in found["instances"]) == sorted(i["class_name"] for i in truth["instances"])
        corners = (np.sort([i["box"] for i in side["instances"]], axis=0) for side in (found, truth))
        np.testing.assert_allclose(*corners, atol=0.5 / 63 + 1e-6)


def test_sequences_are_padded_with_zeros_to_their_length(world, tokenizers):
    tokens = tokenizers.tokens("caption", ["a red sphere", ""])
    assert tokens.shape == (2, tokenizers.lengths()["caption"])
    assert np.count_nonzero(tokens[0]) == 3 and not tokens[0, 3:].any() and not tokens[1].any()


def test_loaded_tokenizers_give_the_same_tokens(world, tokenizers, tmp_path):
    tokenizers.save(tmp_path)
    loaded = TokenizerSet.load(tmp_path)
    assert loaded.digest() == tokenizers.digest() and loaded.vocabulary_sizes() == tokenizers.vocabulary_sizes()
    for name in (*DENSE, "caption", "det"):
        np.testing.assert_array_equal(loaded.tokens(name, column(world, name)), tokenizers.tokens(name, column(world, name)))


def test_killed_run_ends_in_the_bytes_of_an_unbroken_one(world, tmp_path):
    config = tiny_config(checkpoint_every=3)
    train_tokenizers(*world, config, RunContext(0, tmp_path / "unbroken"))
    shutil.copytree(tmp_path / "unbroken", tmp_path / "killed")
    for lost in ("tokenizers.json", "normal/weights.safetensors", "semseg/weights.safetensors", "semseg/settings.json"):
        (tmp_path / "killed" / lost).unlink()
    train_tokenizers(*world, config, RunContext(0, tmp_path / "killed"))
    assert files_of(tmp_path / "killed") == files_of(tmp_path / "unbroken")


def test_damaged_tokenizers_are_not_loaded_and_trained_again(world, tmp_path, caplog):
    config = tiny_config().model_copy(update={"visual": {name: tiny_config().visual[name] for name in ("depth", "rgb")}})
    train_tokenizers(*world, config, RunContext(0, tmp_path))
    before = files_of(tmp_path)
    for name in ("text.json", "tokenizers.json", "depth/weights.safetensors", "rgb/settings.json", "depth/digests.json"):
        content = bytearray(before[name])
        content[-12] ^= 1
        (tmp_path / name).write_bytes(content)
        with pytest.raises(ValueError, match=r"SHA-256 .*kedro run --pipelines=tokenizer_training|no digest|not valid"):
            TokenizerSet.load(tmp_path)
        caplog.clear()
        train_tokenizers(*world, config, RunContext(0, tmp_path))
        assert files_of(tmp_path) == before and "again" in caplog.text, name


def test_a_tokenizer_killed_in_the_middle_resumes_by_default(one_thread, world, tmp_path, monkeypatch):
    config = tiny_config().model_copy(update={"visual": {"depth": tiny_config().visual["depth"]}})
    train_tokenizers(*world, config, RunContext(0, tmp_path / "whole"))
    monkeypatch.setattr(_Loop, "_is_due", lambda self: True)  # a checkpoint after every step
    kill_in_step(5, lambda: train_tokenizers(*world, config, RunContext(0, tmp_path / "killed")))
    assert list(tmp_path.glob("killed/depth/checkpoints/step-*"))
    train_tokenizers(*world, config, RunContext(0, tmp_path / "killed"))
    assert files_of(tmp_path / "killed") == files_of(tmp_path / "whole")


def test_incomplete_tokenizers_are_not_loaded(tokenizers, tmp_path):
    tokenizers.save(tmp_path)
    (tmp_path / "depth/weights.safetensors").unlink()
    with pytest.raises(ValueError, match="lacks the weights of depth"):
        TokenizerSet.load(tmp_path)
    with pytest.raises(ValueError, match="Run tokenizer_training first"):
        TokenizerSet.load(tmp_path / "nowhere")


def test_training_improves_reconstructions(world, tmp_path):
    figures = []
    for steps in (3, 60):
        rgb_only = tiny_config(steps=steps).model_copy(update={"visual": {"rgb": tiny_config(steps=steps).visual["rgb"]}})
        figures.append(measure_tokenizers(train_tokenizers(*world, rgb_only, RunContext(0, tmp_path / str(steps))), *world))
    assert figures[1]["rgb/psnr"] > figures[0]["rgb/psnr"] + 2


def test_measures_cover_every_tokenizer(world, tokenizers):
    figures = measure_tokenizers(tokenizers, *world)
    assert {name.split("/")[0] for name in figures} == {*DENSE, "caption", "det"}
    assert all(np.isfinite(figure) for figure in figures.values())
    assert figures["caption/cut"] == figures["det/cut"] == 0


def test_codebook_metrics_match_their_definition():
    assert codebook_metrics(np.array([0, 1, 2, 3]), 8) == {"codebook_use": 0.5, "perplexity": pytest.approx(4)}
    assert codebook_metrics(np.zeros(9, int), 4) == {"codebook_use": 0.25, "perplexity": pytest.approx(1)}


def test_pretokenized_shards_have_the_tokens_of_each_key(world, tokenizers, tmp_path):
    tokens = pretokenize(*world, tokenizers, CropConfig(), RunContext(0, tmp_path), splits=["train", "val"])
    tokens.verify()
    assert tokens.modalities("val") == sorted([*tokenizers.modalities, "crop_settings"])
    assert tokens.alignment("val").keys_sha256 == world[0].alignment("val").keys_sha256
    for name in (*DENSE, "caption", "det"):
        stored = tokens.load_column("val", f"tok_{name}" if name in DENSE else name)
        assert stored.dtype == np.int16 and stored.shape[1] == 1
        assert (stored[:, 0] == tokenizers.tokens(name, column(world, name))).mean() > 0.99
    np.testing.assert_array_equal(tokens.load_column("val", "crop_settings")[:, 0], [[0, 0, SIZE, SIZE, 0]] * NUM_SAMPLES)


def test_every_caption_of_a_sample_has_a_row_whatever_the_number_of_crops(world, tokenizers, tmp_path):
    shards, labels = world
    folder = shutil.copytree(shards.root, tmp_path / "several")
    texts = {}
    for path in (folder / "val" / "caption").glob("*.tar"):
        members = []
        for number, (key, content) in enumerate(read_members(path)):
            texts[key] = [content.decode(), "a red box", "a blue box and a red sphere"][: number % 3 + 1]
            members.append((key, Captions(texts[key][0], texts[key][1:])))
        write_shard(path, members, "caption")
    finish_split(folder, "val", shards.modalities("val"))
    for crops, rows in ((1, 3), (5, 5)):
        config, out = CropConfig(num_crops=crops), tmp_path / str(crops)
        tokens = pretokenize(ShardSet(folder), labels, tokenizers, config, RunContext(0, out), splits=["val"])
        tokens.verify()
        for sample in tokens.iterate("val", ["caption"]):
            ids_CL = tokenizers.tokens("caption", texts[sample["__key__"]])
            assert sample["caption"].shape == (rows, ids_CL.shape[1]) and sample["caption"].dtype == np.int16
            assert (sample["caption"][: len(ids_CL)] == ids_CL).all() and not sample["caption"][len(ids_CL) :].any()


def test_pretokenizing_again_or_after_a_kill_gives_the_same_bytes(world, tokenizers, tmp_path):
    config = CropConfig(num_crops=3, flip_probability=0.5)
    pretokenize(*world, tokenizers, config, RunContext(0, tmp_path / "one"), splits=["val"])
    pretokenize(*world, tokenizers, config, RunContext(0, tmp_path / "two"), splits=["val"])
    (tmp_path / "two/val/tok_depth/shard-00001.tar").unlink()
    (tmp_path / "two/val/tok_depth/manifest.json").unlink()
    pretokenize(*world, tokenizers, config, RunContext(0, tmp_path / "two"), splits=["val"])
    assert files_of(tmp_path / "one") == files_of(tmp_path / "two")
    assert ShardSet(tmp_path / "one").load_column("val", "tok_rgb").shape == (NUM_SAMPLES, 3, GRID * GRID)


def test_pretokenizing_with_a_work_split_gives_the_same_bytes(world, tokenizers, tmp_path):
    config = CropConfig(num_crops=3, flip_probability=0.5)
    pretokenize(*world, tokenizers, config, RunContext(0, tmp_path / "one"), splits=["val"])
    for index in (1, 0, 2):
        pretokenize(*world, tokenizers, config, RunContext(0, tmp_path / "two"), splits=["val"], work_split=WorkSplit(index, 3))
    pretokenize(*world, tokenizers, config, RunContext(0, tmp_path / "two"), splits=["val"])
    assert files_of(tmp_path / "one") == files_of(tmp_path / "two")


def test_errors_name_the_wrong_value(world, tokenizers):
    with pytest.raises(ValueError, match="Did you mean 'tok_depth'"):
        tokenizers.tokens("tok_dpeth", column(world, "depth"))
    with pytest.raises(ValueError, match="trained for"):
        tokenizers.tokens("depth", column(world, "depth")[:, :16])
    with pytest.raises(ValueError, match="16 tokens from 0 to 99"):
        tokenizers.decode("depth", np.array([[0] * 15 + [99]]))
    with pytest.raises(ValueError, match="'caption' is a sequence and has no VQ-VAE"):
        TokenizersConfig(visual={"caption": VisualTokenizerConfig()})


def test_tokens_in_a_bucket_are_those_of_a_folder_and_give_the_same_weights(world, tokenizers, tmp_path, bucket, one_thread):
    """From images and labels that are in the bucket, too."""
    images, labels = (shutil.copytree(one.root, tmp_path / str(number)) for number, one in enumerate(world))
    for root in (images, labels):
        keep_at(root, bucket.place)
    inputs, config = (ShardSet(images), ShardSet(labels)), CropConfig(num_crops=2)
    local = pretokenize(*world, tokenizers, config, RunContext(0, tmp_path / "local"), splits=["train", "val"])
    kept = {"splits": ["train", "val"], "shards_at": bucket.place}
    stored = pretokenize(*inputs, tokenizers, config, RunContext(0, tmp_path / "stored"), **kept)
    assert stored.digest() == local.digest() and not list(stored.root.rglob("*.tar"))
    for name in stored.shard_names("val"):
        for modality in stored.modalities("val"):
            assert stored.read_file("val", modality, name) == (local.root / "val" / modality / name).read_bytes()
    again = train_tokenizers(*inputs, tiny_config(), RunContext(0, tmp_path / "tokenizers"))
    assert again.digest() == tokenizers.digest()
