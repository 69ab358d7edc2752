"""Facts about stored values."""

import hashlib

import numpy as np
import pytest

from fourfold.data import codecs
from fourfold.data.facts import COLUMNS, fact_table
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
