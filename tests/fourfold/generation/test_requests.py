"""One call for one sample, and one call for many different requests."""

import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from fourfold.generation import Request, generate, generate_many
from fourfold.generation.any_to_any import AnyToAny
from fourfold.generation.config import PRESETS, GenerationConfig, TargetConfig
from fourfold.model.fourm import FourM

sys.path.insert(0, str(Path(__file__).parent))
from counting import CONFIG, CountingTokenizers

IMAGE = np.random.default_rng(0).integers(0, 256, (8, 8, 3), dtype=np.uint8)
WARM = GenerationConfig(grids=TargetConfig(temperature=1.0, steps=2), sequences=TargetConfig(temperature=1.0))


@pytest.fixture(scope="module")
def model() -> AnyToAny:
    return AnyToAny(FourM(CONFIG, seed=2), CountingTokenizers())


def test_one_call_returns_decoded_values_of_one_sample(model):
    found = generate(model, conditions={"rgb": IMAGE}, targets=["depth", "caption"], preset="dense")
    assert found["depth"].shape == (2, 2) and isinstance(found["caption"], str)
    expected = model.predict({"rgb": IMAGE[None]}, ["depth", "caption"], preset="dense")
    np.testing.assert_array_equal(found["depth"], expected["depth"][0])
    assert found["caption"] == expected["caption"][0]


def test_images_may_have_any_form_and_size(model, tmp_path):
    Image.fromarray(IMAGE).save(tmp_path / "photo.png")
    forms = [IMAGE, Image.fromarray(IMAGE), tmp_path / "photo.png", str(tmp_path / "photo.png")]
    found = [generate(model, {"rgb": form}, ["depth"])["depth"].tolist() for form in forms]
    assert found == [found[0]] * 4
    wide = np.zeros((8, 20, 3), np.uint8)
    wide[:, 6:14] = IMAGE  # the center square
    assert generate(model, {"rgb": wide}, ["depth"])["depth"].tolist() == found[0]


def test_different_requests_in_one_call_equal_single_calls(model):
    requests = [
        Request({"rgb": IMAGE}, ["depth", "caption"], WARM, seed=1),
        Request({"caption": "a bb"}, ["depth", "caption"], WARM, seed=2),
        Request({"caption": "a bb", "rgb": IMAGE[::-1].copy()}, ["depth"], "dense", seed=3),
        Request({"depth": np.ones((2, 2))}, ["caption"], WARM, seed=1),
        Request({"rgb": IMAGE, "caption": "ccc"}, ["depth"], weights={"caption": -0.5}),
        Request({"caption": "a ccc"}, ["depth", "caption"], WARM, seed=2),
    ]
    together = generate_many(model, requests)
    for request, found in zip(requests, together, strict=True):
        alone = generate(
            model, request.conditions, request.targets, preset=request.preset, weights=request.weights, seed=request.seed
        )
        assert {name: np.asarray(value).tolist() for name, value in found.items()} == {
            name: np.asarray(value).tolist() for name, value in alone.items()
        }
    assert generate_many(model, []) == []


@pytest.mark.parametrize("name", sorted(set(PRESETS) - {"caption_to_rgb", "super_resolution"}))
def test_every_preset_works_by_name(model, name):
    assert generate(model, {"rgb": IMAGE}, ["depth"], preset=name)["depth"].shape == (2, 2)


@pytest.mark.parametrize(
    ("conditions", "targets", "preset", "message"),
    [
        ({}, ["depth"], "greedy", "at least one condition"),
        ({"rgb": IMAGE}, ["dpeth"], "greedy", "Did you mean 'depth'"),
        ({"rbg": IMAGE}, ["depth"], "greedy", "Did you mean 'rgb'"),
        ({"rgb": IMAGE}, ["depth"], "densse", "Did you mean 'dense'"),
        ({"rgb": IMAGE}, ["rgb"], "caption_to_rgb", "Unknown modality of this model 'tok_clip'"),
        ({"caption": "  "}, ["depth"], "greedy", "'caption': caption empty. Pass 1 to 1,000 characters"),
        ({"rgb": IMAGE[..., 0]}, ["depth"], "greedy", r"uint8 of shape \(8, 8\); pass uint8 \(height, width, 3\)"),
        ({"rgb": 3}, ["depth"], "greedy", "is a int; pass an array, a Pillow image or a path"),
        ({"rgb": b"no image"}, ["depth"], "greedy", "image unreadable. Use a JPEG"),
        ({"rgb": IMAGE, "depth": "far"}, ["caption"], "greedy", "'depth' is a str; pass an array"),
        ({"caption": 7}, ["depth"], "greedy", "'caption' is a int; pass text"),
    ],
)
def test_bad_requests_raise_helpful_errors(model, conditions, targets, preset, message):
    with pytest.raises(ValueError, match=message):
        generate(model, conditions, targets, preset=preset)
