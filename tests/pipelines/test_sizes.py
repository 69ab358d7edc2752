"""`kedro sizes`: bytes and hours, scaled up from the shards of a small run."""

import json

import numpy as np
import pytest

from fourfold.data.shards import finish_split, shard_name, write_columns
from fourfold_ops.errors import UserError
from pipelines.sizes import SETS, Measured, measured, table

KEYS = [f"k{number}" for number in range(4)]


@pytest.fixture
def data(tmp_path):
    """Four images with labels and tokens, and the seconds of two nodes."""
    values = {"images": {"caption": "a cat"}, "raw labels": {"depth": np.ones((8, 8))}, "labels": {"depth": np.ones((8, 8))}}
    values["tokens"] = {"tok_depth": np.zeros((1, 4), int)}
    for name, of_modality in values.items():
        root = tmp_path / SETS[name]
        write_columns(root, "val", shard_name(0), {m: [(key, value) for key in KEYS] for m, value in of_modality.items()})
        finish_split(root, "val", list(of_modality))
    seconds = {"ingestion": {"ingest_images": 2.0}, "pseudo_labeling": {"label_images": 6.0, "train_labelers": 99.0}}
    (tmp_path / "seconds.json").write_text(json.dumps(seconds))
    return tmp_path


def test_bytes_and_seconds_a_sample_are_those_of_the_files(data):
    found = measured(data)
    for name, place in SETS.items():
        files = [path for path in (data / place).rglob("shard-*") if path.is_file()]
        assert len(files) == 2  # with the facts beside it
        assert sum(found.bytes[name].values()) == sum(path.stat().st_size for path in files) / 4
    assert found.seconds == {"ingest_images": 0.5, "label_images": 1.5}


def test_what_is_kept_decides_which_labels_take_space():
    found = Measured({"images": {"rgb": 10.0}, "labels": {"depth": 6.0, "semseg": 2.0}, "tokens": {"tok_depth": 1.0}}, {})
    stored = {keep: found.stored(1000, keep, 50, 0.1)["labels"] for keep in ("all", "sample", "none")}
    assert stored == pytest.approx({"all": 8000, "sample": 8 * 150, "none": 800})
    assert found.stored(1000, "sample", 5000, 0.1)["labels"] == pytest.approx(8000)  # no more than there are
    assert found.stored(1000, "none", 50, 0.1)["images"] == 10_000


def test_the_table_has_a_line_for_each_choice_and_hours(data):
    lines = list(table(measured(data), 7_200, 100, 0.1))
    assert [line.split()[0] for line in lines if line.startswith(("  all", "  sample", "  none"))] == ["all", "sample", "none"]
    assert next(line for line in lines if "ingest_images" in line).split()[1:7] == ["500.00", "ms", "a", "sample", "1.0", "h"]


def test_without_shards_nothing_is_invented(tmp_path):
    with pytest.raises(UserError, match="has no shards, so nothing can be scaled up"):
        measured(tmp_path)
