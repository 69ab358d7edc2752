"""The files that a request writes."""

import numpy as np
import pytest
from PIL import Image

from fourfold.data.codecs import decode
from fourfold.data.shards import ShardSet, finish_split, write_columns
from fourfold.evaluation.report.answers import ANSWERS_FILE, NEIGHBORS_FILE, SHEET_FILE, write_answers, write_neighbors
from fourfold.storage import read_json

RNG = np.random.default_rng(0)
RGB = RNG.integers(0, 256, (16, 16, 3), dtype=np.uint8)
ANSWERS = {
    "depth": RNG.uniform(2, 9, (16, 16)).astype(np.float16),
    "normal": RNG.integers(0, 256, (16, 16, 3), dtype=np.uint8),
    "semseg": RNG.integers(0, 6, (16, 16), dtype=np.uint8),
    "clip": RNG.normal(size=(2, 2, 8)).astype(np.float16),
    "caption": "a large red sphere left of a small blue box",
    "det": {"instances": [{"box": [0.1, 0.2, 0.6, 0.9], "class_name": "box", "score": 0.9}]},
}


@pytest.mark.parametrize("conditions", [{"rgb": RGB}, {"caption": "a cone"}, {"rgb": RGB, "caption": "a cone"}])
def test_answers_can_be_read_back_and_are_on_the_contact_sheet(tmp_path, conditions):
    written = write_answers(conditions, ANSWERS, tmp_path / "new", {"seed": 3})
    assert all(path.is_file() for path in written) and written[-1].name == SHEET_FILE
    listed = read_json(tmp_path / "new" / ANSWERS_FILE)
    assert (listed["seed"], listed["answers"]["caption"]) == (3, ANSWERS["caption"])
    assert listed["answers"]["det"] == ANSWERS["det"] and listed["answers"]["depth"] == "depth.npy"
    for name, value in ANSWERS.items():
        (path,) = [path for path in written if path.stem == name]
        found = decode(name, path.read_bytes())
        assert np.array_equal(found, value) if isinstance(value, np.ndarray) else found == value
    with Image.open(tmp_path / "new" / SHEET_FILE) as sheet:
        assert sheet.width == 12 + (len(conditions) + len(ANSWERS)) * 268
    images = {path.name for path in written if path.stem.endswith("_image")}
    assert images == {f"{name}_image.png" for name in ("depth", "normal", "semseg", "clip", "det")}


def test_a_generated_image_has_no_second_file(tmp_path):
    written = write_answers({"caption": "a cone"}, {"rgb": RGB}, tmp_path)
    assert [path.name for path in written] == ["rgb.png", ANSWERS_FILE, SHEET_FILE]
    assert np.array_equal(decode("rgb", (tmp_path / "rgb.png").read_bytes()), RGB)


def test_neighbors_are_listed_nearest_first(tmp_path):
    images = {f"k{row}": RNG.integers(0, 256, (16, 16, 3), dtype=np.uint8) for row in range(12)}
    for shard in range(2):
        some = list(images.items())[shard * 6 : shard * 6 + 6]
        write_columns(tmp_path / "shards", "test", f"shard-0000{shard}.tar", {"rgb": some})
    finish_split(tmp_path / "shards", "test", ["rgb"])
    ranked = {f"k{row}": 1 - row / 20 for row in (11, 2, 7, 0, 1, 3, 4, 5)}
    written = write_neighbors({"caption": "a cone"}, ranked, ShardSet(tmp_path / "shards"), "test", tmp_path / "new")
    assert [path.name for path in written] == [NEIGHBORS_FILE, SHEET_FILE]
    assert [found["key"] for found in read_json(written[0])["neighbors"]] == list(ranked)
    with Image.open(written[1]) as sheet:
        assert sheet.size == (12 + 8 * 268, 12 + 2 * 292)  # nine cells in two rows
        first = np.asarray(sheet.crop((280, 36, 536, 292)).resize((16, 16), Image.Resampling.NEAREST))
        last = np.asarray(sheet.crop((12, 328, 268, 584)).resize((16, 16), Image.Resampling.NEAREST))
    assert np.array_equal(first, images["k11"]) and np.array_equal(last, images["k5"])
