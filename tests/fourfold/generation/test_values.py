"""Units of conditions: what is accepted, what it becomes, and what is refused."""

import numpy as np
import pytest
import torch

from fourfold.generation.config import PRESETS
from fourfold.generation.values import pixels, stored
from fourfold.modalities import IMAGENET_MEAN, IMAGENET_STD

BYTES = np.random.default_rng(0).integers(0, 256, (2, 4, 4, 3), dtype=np.uint8)


@pytest.mark.parametrize("kind", [np.float32, np.float64, np.float16, torch.Tensor])
def test_floats_are_standardized_as_bytes_are(kind):
    share = BYTES / 255
    given = torch.tensor(share) if kind is torch.Tensor else share.astype(kind)
    expected = (share - IMAGENET_MEAN) / IMAGENET_STD
    np.testing.assert_allclose(pixels("rgb", given).numpy(), expected, atol=2e-3 if kind is np.float16 else 1e-5)


def test_bytes_stay_bytes_and_other_integers_may_be_missing():
    assert torch.equal(pixels("rgb", BYTES), torch.tensor(BYTES))
    wide = BYTES.astype(np.int64)
    wide[0, 0, 0] = -1
    assert pixels("rgb", wide).dtype == torch.int16 and int(pixels("rgb", wide).min()) == -1


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (BYTES.astype(np.float32), "has values from 0 to 248; allowed: floats from 0 to 1, or uint8"),
        ((BYTES / 255 - 0.5).astype(np.float32), "has values from -0.5 to .*; allowed: floats from 0 to 1"),
        (np.full((1, 2, 2, 3), np.nan), "has values from nan to nan"),
        (BYTES.astype(np.int32) + 1000, "has values from 1000 to 1248; allowed: integers from 0 to 255"),
        (np.array(["a"]), "has the type <U1; allowed: integers"),
    ],
)
def test_other_images_are_errors(values, message):
    with pytest.raises(ValueError, match=f"^Condition 'rgb' {message}"):
        pixels("rgb", values)


def test_labels_are_converted_to_the_dtype_of_the_shards():
    np.testing.assert_array_equal(stored("rgb", BYTES / 255), BYTES)
    normals = BYTES.astype(np.float64) / 127.5 - 1
    np.testing.assert_array_equal(stored("normal", normals.astype(np.float32)), BYTES)
    np.testing.assert_array_equal(stored("semseg", torch.tensor(BYTES[..., 0]).long()), BYTES[..., 0])
    depth = np.ones((1, 2, 2), dtype=np.float64)
    assert stored("depth", depth) is depth and stored("caption", ["a"]) == ["a"]
    assert stored("depth", BYTES[..., 0].astype(np.uint16), is_metric=False).dtype == np.uint16


@pytest.mark.parametrize(
    ("name", "values", "message"),
    [
        ("depth", BYTES[..., 0], "this model needs meters as floats"),
        ("semseg", np.full((1, 2, 2), 0.5), "has fractions"),
        ("semseg", np.full((1, 2, 2), 300), "integers from 0 to 255"),
        ("normal", np.full((1, 2, 2, 3), 1.5), "floats from -1 to 1"),
        ("rgb", np.full((1, 2, 2, 3), 255.0), "floats from 0 to 1"),
    ],
)
def test_other_labels_are_errors(name, values, message):
    with pytest.raises(ValueError, match=message):
        stored(name, values)


def test_presets_with_names_of_the_reference_have_its_defaults():
    """Steps, order, temperature, final temperature, guidance of the reference's sampler; its top-p is 0.8 for all."""
    expected = {
        "rgb2x": {
            "tok_depth@224": ("roar", 1, 0.01, 0.0, 2.0),
            "tok_dinov2@224": ("roar", 1, 0.01, 0.0, 2.0),
            "caption": (None, None, 0.3, 0.0, 1.0),
            "det": (None, None, 0.3, 0.0, 1.0),
            "human_poses": (None, None, 0.1, 0.0, 1.0),
            "sam_instance": (None, None, 0.01, 0.0, 1.0),
            "metadata": (None, None, 0.1, 0.0, 1.0),
        },
        "x2rgb": {
            "tok_clip@224": ("roar", 50, 5.0, 0.5, 3.0),
            "tok_imagebind@224": ("roar", 8, 0.01, 0.0, 2.0),
            "tok_semseg@224": ("roar", 8, 3.0, 0.5, 2.0),
            "tok_rgb@224": ("roar", 25, 3.0, 0.5, 2.0),
            "color_palette": (None, None, 0.1, 0.0, 1.0),
        },
        "sr": {"tok_rgb@448": ("maskgit", 8, 1.0, 0.0, 2.0)},
    }
    for preset, targets in expected.items():
        assert PRESETS[preset].chain and PRESETS[preset].show_sentinel
        for name, (order, steps, temperature, final, guidance) in targets.items():
            found = PRESETS[preset].of(name, "grid" if order else "sequence")
            assert (found.temperature, found.final_temperature, found.guidance, found.top_p) == (
                temperature,
                final,
                guidance,
                0.8,
            )
            assert order is None or (found.order, found.steps) == (order, steps)
    assert {name for name, preset in PRESETS.items() if not preset.show_sentinel} == {"greedy", "one_pass"}
