"""Facts about stored values."""

import hashlib

import numpy as np
import pytest

from fourfold.data import codecs
from fourfold.data.fact_tables import COLUMNS, fact_table, shard_table
from fourfold.data.facts import facts_path
from fourfold.data.shards import ShardSet, finish_split, shard_name, write_columns
from fourfold.modalities import ClassTable

RGB = np.arange(48, dtype=np.uint8).reshape(4, 4, 3)
BOXES = {"instances": [{"box": [0.1, 0.2, 0.5, 0.9], "class_name": "box", "score": 0.7}]}


@pytest.fixture
def shards(tmp_path):
    for shard in range(2):
        keys = [f"k{shard}{i}" for i in range(2)]
        values = {"rgb": RGB, "caption": "a red sphere", "det": BOXES, "depth": np.full((4, 4), 2.5), "tok_rgb": [[3, 7]]}
        write_columns(
            tmp_path, "val", shard_name(shard), {name: [(key, value) for key in keys] for name, value in values.items()}
        )
    finish_split(tmp_path, "val", ["rgb", "caption", "det", "depth", "tok_rgb"])
    return ShardSet(tmp_path)


def rows_of(shards, modality):
    return [row for row in fact_table(shards, ["val"]) if row["modality"] == modality]


def test_one_row_per_sample_and_modality_with_every_column(shards):
    table = fact_table(shards)
    assert len(table) == 5 * 4 and all(tuple(row) == COLUMNS for row in table)
    for modality in shards.modalities("val"):
        rows = rows_of(shards, modality)
        assert [(row["key"], row["position"]) for row in rows] == list(zip(shards.keys("val"), range(4), strict=True))


def test_facts_are_those_of_the_values(shards):
    rgb, caption, det, depth, tokens = (rows_of(shards, m)[0] for m in ("rgb", "caption", "det", "depth", "tok_rgb"))
    assert (rgb["height"], rgb["width"], rgb["channels"], rgb["min"], rgb["max"], rgb["mean"]) == (4, 4, 3, 0, 47, 23.5)
    assert rgb["sha256"] == hashlib.sha256(codecs.encode("rgb", RGB)).hexdigest()
    assert (caption["caption_length"], caption["num_words"], caption["height"]) == (12, 3, None)
    assert (det["num_instances"], det["min_score"], det["boxes_valid"]) == (1, 0.7, True)
    assert (depth["min"], depth["max"], depth["finite"]) == (2.5, 2.5, True)
    assert (tokens["height"], tokens["width"], tokens["max"]) == (1, 2, 7)


@pytest.mark.parametrize("box", [[0.5, 0.2, 0.1, 0.9], [-0.1, 0, 1, 1], [0, 0, 1, 1.2]])
def test_invalid_boxes_are_reported(tmp_path, box):
    value = {"instances": [{"box": box, "class_name": "box", "score": 0.7}]}
    write_columns(tmp_path, "val", shard_name(0), {"det": [("k", value)]})
    finish_split(tmp_path, "val", ["det"])
    assert fact_table(ShardSet(tmp_path))[0]["boxes_valid"] is False


def test_vector_is_a_feature_map_of_one_position(tmp_path):
    vector = np.array([0.6, -0.8, 0], np.float16)
    write_columns(tmp_path, "val", shard_name(0), {"clip_global": [("k", vector)]})
    finish_split(tmp_path, "val", ["clip_global"])
    (row,) = fact_table(ShardSet(tmp_path))
    assert (row["height"], row["width"], row["channels"]) == (1, 1, 3)
    assert (row["min"], row["max"], row["finite"]) == (vector.min(), vector.max(), True)


def test_class_ids_outside_the_class_table_are_counted(tmp_path):
    ids_HW = np.array([[0, 1, 2], [7, 9, 255]], np.uint8)
    write_columns(tmp_path, "val", "shard-00000.tar", {"semseg": [("a", ids_HW)]})
    table = ClassTable(names=("sky", "floor", "sphere"), ignored=(255,))
    finish_split(tmp_path, "val", ["semseg"], class_tables={"semseg": table})
    assert fact_table(ShardSet(tmp_path))[0]["num_unknown_ids"] == 2


def decoded(monkeypatch):
    """Return the list of modalities whose stored bytes were decoded as images."""
    seen, decode = [], codecs.decode
    monkeypatch.setattr(codecs, "decode", lambda name, content: seen.append(name) or decode(name, content))
    return seen


def test_facts_are_written_with_the_shard_and_never_by_decoding_an_image(tmp_path, monkeypatch):
    table = ClassTable(names=("sky", "floor"))
    seen = decoded(monkeypatch)
    columns = {"rgb": [("a", RGB)], "semseg": [("a", np.full((4, 4), 7, np.uint8))]}
    write_columns(tmp_path, "val", shard_name(0), columns, {"semseg": table})
    finish_split(tmp_path, "val", ["rgb", "semseg"], class_tables={"semseg": table})
    rows = fact_table(ShardSet(tmp_path))
    assert not seen and [row["num_unknown_ids"] for row in rows] == [None, 16]


@pytest.mark.parametrize("damage", ["gone", "flipped", "of another shard", "of other classes"])
def test_facts_that_do_not_fit_their_shard_are_refused_and_made_again(tmp_path, damage):
    table = ClassTable(names=("sky", "floor"))
    for shard in range(2):
        values = [(f"k{shard}{i}", np.full((4, 4), i + shard, np.uint8)) for i in range(3)]
        write_columns(tmp_path, "val", shard_name(shard), {"semseg": values}, {"semseg": table})
    finish_split(tmp_path, "val", ["semseg"], class_tables={"semseg": table})
    path, other = (facts_path(tmp_path / "val/semseg" / shard_name(shard)) for shard in range(2))
    before, wanted = path.read_bytes(), fact_table(ShardSet(tmp_path))
    if damage == "gone":
        path.unlink()
    elif damage == "of another shard":
        path.write_bytes(other.read_bytes())
    elif damage == "flipped":
        path.write_bytes(before[:200] + bytes([before[200] ^ 1]) + before[201:])
    if damage != "of other classes":
        for action in (lambda: fact_table(ShardSet(tmp_path)), ShardSet(tmp_path).verify):
            with pytest.raises(ValueError, match=r"shard-00000\.facts\.parquet (changed|cannot be read).*Run the stage"):
                action()
        finish_split(tmp_path, "val", ["semseg"], class_tables={"semseg": table})
        assert (path.read_bytes(), fact_table(ShardSet(tmp_path))) == (before, wanted)
        return
    finish_split(tmp_path, "val", ["semseg"], class_tables={"semseg": ClassTable(names=("sky",))})
    assert [row["num_unknown_ids"] for row in fact_table(ShardSet(tmp_path))] == [0, 16, 16, 16, 16, 16]


@pytest.fixture
def many(tmp_path):
    """Forty shards of 25 captions; lengths are 10 to 99 but for one, and one key is there twice."""
    lengths = np.random.default_rng(0).integers(10, 100, 1000)
    lengths[617] = 101
    for shard in range(40):
        rows = range(shard * 25, shard * 25 + 25)
        keys = ["k3" if row == 702 else f"k{row}" for row in rows]
        captions = [(key, "x" * lengths[row]) for key, row in zip(keys, rows, strict=True)]
        write_columns(tmp_path, "train", shard_name(shard), {"caption": captions})
    finish_split(tmp_path, "train", ["caption"])
    return ShardSet(tmp_path), lengths


def test_a_large_set_gives_every_nth_row_and_those_with_extreme_values(many):
    shards, lengths = many
    rows = fact_table(shards, max_rows=100)
    positions = [row["position"] for row in rows]
    assert positions == sorted(set(positions)) and {*range(0, 1000, 10), 617, int(lengths.argmin())} <= set(positions)
    assert len(rows) <= 100 + 4  # the extremes of bytes and of lengths, which are the same here
    everything = {row["position"]: row for row in fact_table(shards)}
    assert len(everything) == 1000 and all(row == everything[row["position"]] for row in rows)


def test_the_table_of_shards_has_their_totals(many):
    shards, lengths = many
    rows = shard_table(shards).to_pylist()
    assert [row["samples"] for row in rows] == [25] * 40
    assert [row["largest_caption_length"] for row in rows] == lengths.reshape(40, 25).max(1).tolist()
    assert [row["smallest_caption_length"] for row in rows] == lengths.reshape(40, 25).min(1).tolist()
    repeated = [(row["shard"], row["repeated_keys"], row["first_repeated_key"]) for row in rows if row["repeated_keys"]]
    assert repeated == [("train/caption/shard-00028.tar", 1, "k3")]


def test_the_table_of_shards_counts_faults(tmp_path):
    broken = {"instances": [{"box": [0.5, 0.2, 0.1, 0.9], "class_name": "box", "score": 0.7}]}
    columns = {
        "det": [("a", BOXES), ("b", broken), ("c", broken)],
        "rgb": [("a", RGB), ("b", RGB[:2]), ("c", RGB)],
    }
    write_columns(tmp_path, "val", shard_name(0), columns)
    finish_split(tmp_path, "val", ["det", "rgb"])
    det, rgb = shard_table(ShardSet(tmp_path)).to_pylist()
    assert (det["invalid_boxes"], det["not_square"], det["not_finite"]) == (2, 0, 0)
    assert (rgb["invalid_boxes"], rgb["not_square"], rgb["smallest_height"], rgb["largest_height"]) == (0, 1, 2, 4)
