"""Reading captions back, compared with the scenes that they describe."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fourfold.metrics.statistics import values
from fourfold.scenes.scoring import caption_statistics, described_objects, described_pairs, described_shapes
from fourfold.scenes.world.captions import caption
from fourfold.scenes.world.config import ScenesConfig
from fourfold.scenes.world.scene import scene

CONFIG = ScenesConfig()


@given(st.integers(0, 10_000), st.sampled_from(["web", "transfer"]))
def test_all_objects_of_a_scene_are_read_back_from_its_caption(index, style):
    one = scene(3, "val", index, CONFIG)
    truth = {(thing.size, thing.color, thing.texture, thing.shape) for thing in one.objects}
    assert set(described_objects(caption(one, style))) == truth


def test_second_mentions_and_plurals_add_no_objects():
    assert described_pairs("A red sphere and two blue boxes; the red sphere is left of a box.") == {
        ("red", "sphere"),
        ("blue", "box"),
    }
    assert described_shapes("cones and cylinders") == {"cone", "cylinder"}
    assert described_objects("") == []


@given(st.text())
def test_any_text_can_be_parsed(text):
    described_objects(text)


def test_scores_compare_objects_and_not_wording():
    truth = ["a large red sphere left of a small blue box", "a small green cone"]
    other = [
        "there is a small blue box to the right of a large red striped sphere",
        "a small green cone behind a large red box",
    ]
    found = values(caption_statistics(other, truth))
    assert found == pytest.approx({"exact": 0.5, "exact_objects": 0, "pair_f1": 2 * 3 / 7, "count": 0.5, "verbatim": 0})
    assert values(caption_statistics(truth, truth)) == pytest.approx(dict.fromkeys(found, 1))
