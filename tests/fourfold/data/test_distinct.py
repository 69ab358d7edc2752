"""Sets of texts on disk."""

import random

from fourfold.data import distinct
from fourfold.data.distinct import TextSet


def test_a_text_set_knows_what_a_set_knows_with_a_small_cache(tmp_path, monkeypatch):
    monkeypatch.setattr(distinct, "CACHE_KIB", 64)  # less than the entries need
    draw, expected, found = random.Random(0), set(), TextSet(tmp_path)
    for _ in range(12_000):
        text = f"ü{draw.randrange(8_000)}"
        assert (text in found) == (text in expected)
        assert found.add(text) == (text not in expected)
        expected.add(text)
    repeated = [text for text in ("ü1", "ü2", "ü8000") if text in expected]
    assert found.repeated(["ü1", "ü2", "new", "new", "\ud800"]) == [*repeated, "new"]


def test_nothing_is_left_on_disk(tmp_path):
    found, other = TextSet(tmp_path), TextSet(tmp_path)
    found.add("a")
    assert "a" in found and "a" not in other and not list(tmp_path.iterdir())
