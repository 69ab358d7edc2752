"""What a request leaves on disk."""

import numpy as np
import pytest
from PIL import Image

from fourfold.data.codecs import decode
from fourfold.evaluation.answers import SHEET_FILE, write_answers

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
def test_every_answer_can_be_read_back_and_is_on_the_contact_sheet(tmp_path, conditions):
    written = write_answers(conditions, ANSWERS, tmp_path / "new")
    assert all(path.is_file() for path in written) and written[-1].name == SHEET_FILE
    for name, value in ANSWERS.items():
        (path,) = [path for path in written if path.stem == name]
        found = decode(name, path.read_bytes())
        assert np.array_equal(found, value) if isinstance(value, np.ndarray) else found == value
    with Image.open(tmp_path / "new" / SHEET_FILE) as sheet:
        assert sheet.width == 12 + (len(conditions) + len(ANSWERS)) * 268
    pictures = {path.name for path in written if path.stem.endswith("_picture")}
    assert pictures == {f"{name}_picture.png" for name in ("depth", "normal", "semseg", "clip", "det")}


def test_an_image_from_a_caption_is_its_own_picture(tmp_path):
    written = write_answers({"caption": "a cone"}, {"rgb": RGB}, tmp_path)
    assert [path.name for path in written] == ["rgb.png", SHEET_FILE]
    assert np.array_equal(decode("rgb", (tmp_path / "rgb.png").read_bytes()), RGB)
