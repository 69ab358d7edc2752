import math
from itertools import combinations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from fourfold.scenes.world import COLORS, SHAPES, SPLITS, ScenesConfig, parse_key, scene

CONFIG = ScenesConfig()
INDICES = st.integers(0, 10**6 - 1)


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 2**31), split=st.sampled_from(SPLITS), index=INDICES)
def test_a_scene_is_a_function_of_its_arguments(seed, split, index):
    first = scene(seed, split, index, CONFIG)
    scene(seed + 1, split, index, CONFIG)
    assert scene(seed, split, index, CONFIG) == first
    assert scene(seed + 1, split, index, CONFIG) != first
    assert parse_key(first.key) == (split, index)


@settings(max_examples=80, deadline=None)
@given(index=INDICES, max_objects=st.integers(1, 4))
def test_objects_are_apart_in_range_and_differ_in_color_or_shape(index, max_objects):
    solids = scene(0, "train", index, ScenesConfig(max_objects=max_objects)).objects
    assert 1 <= len(solids) <= max_objects
    assert len({(solid.color, solid.shape) for solid in solids}) == len(solids)
    for solid in solids:
        assert CONFIG.nearest <= solid.z <= CONFIG.farthest
    for one, two in combinations(solids, 2):
        assert math.hypot(one.x - two.x, one.z - two.z) > one.footprint + two.footprint


def test_counts_shapes_colors_and_sizes_are_balanced():
    scenes = [scene(0, "train", index, CONFIG) for index in range(1200)]
    solids = [solid for one in scenes for solid in one.objects]
    for number in (1, 2, 3):
        assert sum(len(one.objects) == number for one in scenes) / 1200 == pytest.approx(1 / 3, abs=0.06)
    for shape in SHAPES:
        assert sum(solid.shape == shape for solid in solids) / len(solids) == pytest.approx(1 / 4, abs=0.05)
    for color in COLORS:
        assert sum(solid.color == color for solid in solids) / len(solids) == pytest.approx(1 / 8, abs=0.03)
    assert sum(solid.size == "large" for solid in solids) / len(solids) == pytest.approx(1 / 2, abs=0.06)


def test_splits_share_no_scene():
    looks = [{scene(0, split, index, CONFIG).objects for index in range(40)} for split in SPLITS]
    assert len(set.union(*looks)) == 40 * len(SPLITS)


def test_errors_about_names_list_what_is_allowed():
    with pytest.raises(ValueError, match=r"Unknown split 'trian'.*annotated, train"):
        scene(0, "trian", 0, CONFIG)
    for key in ("train-12", "photo_000001", "dev-000001"):
        with pytest.raises(ValueError, match="is not the key of a scene"):
            parse_key(key)


@pytest.mark.parametrize(
    "settings_", [{"num_samples": {"dev": 3}}, {"min_objects": 3, "max_objects": 2}, {"farthest": 20.0}, {"image_sise": 64}]
)
def test_impossible_settings_are_rejected(settings_):
    with pytest.raises(ValidationError):
        ScenesConfig(**settings_)


def test_settings_in_which_no_object_fits_are_an_error():
    with pytest.raises(ValueError, match="No object fits into the view"):
        scene(0, "train", 0, ScenesConfig(large=1.9, small=1.9, nearest=2.0, farthest=2.1))
