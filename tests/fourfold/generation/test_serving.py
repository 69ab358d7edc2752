"""Requests of a server: the same answers as in process, in batches too, and one sentence about what is wrong."""

import base64
import io
import sys
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from fourfold.data.codecs import decode
from fourfold.generation.any_to_any import AnyToAny
from fourfold.generation.config import PRESETS
from fourfold.generation.requests import as_image
from fourfold.generation.serving import ServedModel, check_boxes, formatted
from fourfold.model.fourm import FourM

sys.path.insert(0, str(Path(__file__).parent))
from counting import CONFIG, CountingTokenizers


@pytest.fixture(scope="module")
def model() -> AnyToAny:
    return AnyToAny(FourM(CONFIG, seed=2), CountingTokenizers())


@pytest.fixture
def served(model) -> ServedModel:
    return ServedModel(model)


@pytest.fixture
def images() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (3, 8, 8, 3), dtype=np.uint8)


def png(array: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(array).save(buffer, "PNG")
    return buffer.getvalue()


def assert_equal(found, expected):
    assert found.keys() == expected.keys()
    for name, values in expected.items():
        np.testing.assert_array_equal(found[name], values)


@pytest.mark.parametrize("preset", ["greedy", "dense"])
def test_answers_are_those_of_the_model_in_process(served, model, images, preset):
    found = served.predict({"rgb": images}, ["depth", "caption"], preset=preset, seed=3)
    assert_equal(found, model.predict({"rgb": images}, ["depth", "caption"], preset=preset, seed=3))


def test_requests_that_are_answered_together_have_their_own_answers(served, images):
    calls = [
        ({"rgb": images}, {"targets": ["depth", "caption"], "seed": 1, "preset": "dense"}),
        ({"rgb": images[:1]}, {"targets": ["depth", "caption"], "seed": 2, "preset": "dense"}),
        ({"caption": ["a bb", "ccc"]}, {"targets": ["depth"]}),
        ({"caption": ["a bb ccc d"], "rgb": images[1:2]}, {"targets": ["depth"]}),
        ({"caption": ["ccc"]}, {"targets": ["depth"], "seed": 5, "temperature": 1.0}),
        ({"caption": ["ccc"]}, {"targets": ["depth"], "seed": 6, "temperature": 1.0}),
        ({"rgb": [images[0], None], "caption": [None, "a"]}, {"targets": ["depth"]}),
    ]
    prepared = [served.prepare(conditions, **params) for conditions, params in calls]
    assert len({one.group() for one in prepared}) == 5
    for answer, (conditions, params) in zip(served.answer(prepared), calls, strict=True):
        assert_equal(answer, served.predict(conditions, **params))


def test_images_may_have_any_size_and_come_as_files(served, model):
    image = np.random.default_rng(1).integers(0, 256, (37, 100, 3), dtype=np.uint8)
    expected = model.predict({"rgb": np.stack([as_image(image, 8)])}, ["depth"])
    assert_equal(served.predict({"rgb": [image]}, ["depth"]), expected)
    assert_equal(served.predict({"rgb": [png(image)]}, ["depth"]), expected)


def test_guidance_and_temperature_replace_those_of_the_preset(served, model, images):
    settings = PRESETS["dense"].model_copy(deep=True)
    changes = {"guidance": 1.5, "temperature": 0.9, "temperature_schedule": "constant"}
    general = {name: getattr(settings, name).model_copy(update=changes) for name in ("grids", "sequences")}
    expected = model.predict({"rgb": images}, ["depth", "caption"], preset=settings.model_copy(update=general))
    found = served.predict({"rgb": images}, ["depth", "caption"], preset="dense", guidance=1.5, temperature=0.9)
    assert_equal(found, expected)


def test_depth_as_png_has_millimeters_and_can_be_sent_back(served, images):
    (text,) = served.predict({"rgb": images[:1]}, ["depth"], format="png")["depth"]
    with Image.open(io.BytesIO(base64.b64decode(text))) as image:
        millimeters = np.asarray(image)
    meters = served.predict({"rgb": images[:1]}, ["depth"])["depth"][0]
    np.testing.assert_allclose(millimeters / 1000, meters, atol=5e-4)
    again = served.predict({"depth": [base64.b64decode(text)]}, ["caption"])
    assert again == served.predict({"depth": [meters]}, ["caption"])


IMAGE = np.zeros((8, 8, 3), np.uint8)


@pytest.mark.parametrize(
    ("conditions", "params", "message"),
    [
        ({}, {}, "Give at least one condition"),
        ({"rgb": [IMAGE]}, {"targets": ["dpeth"]}, "Unknown target 'dpeth'. Did you mean 'depth'\\? Known: caption, depth.$"),
        ({"rgb": [IMAGE]}, {"targets": ["semseg"]}, "Unknown target 'semseg'. Known: caption, depth.$"),
        ({"rgb": [IMAGE]}, {"targets": ["rgb"]}, "Unknown target 'rgb'. Known: caption, depth.$"),
        ({"rgb": [IMAGE]}, {"targets": ["depth@512"]}, "Unknown modality of this model 'tok_depth@512'"),
        ({"rgb": [IMAGE]}, {"targets": []}, "give a list of labels"),
        ({"rgb": [IMAGE]}, {"targets": "depth"}, "give a list of labels"),
        ({"semseg": [IMAGE]}, {}, "Unknown input 'semseg'. Known: caption, depth, rgb.$"),
        ({"rgb": [IMAGE]}, {"preset": "gredy"}, "Unknown preset 'gredy'. Did you mean 'greedy'"),
        ({"rgb": [IMAGE]}, {"guidance": -1}, "`guidance` is -1; it must be a number of 0 or more"),
        ({"rgb": [IMAGE]}, {"temperature": float("inf")}, "`temperature` is inf; it must be a number"),
        ({"rgb": [IMAGE]}, {"format": "jpg"}, "Unknown format 'jpg'. Allowed: array, png."),
        ({"rgb": [b"no image"]}, {}, "Input 'rgb': image unreadable. Use a JPEG"),
        ({"rgb": [IMAGE[..., 0]]}, {}, r"uint8 of shape \(8, 8\); pass uint8"),
        ({"caption": [" "]}, {}, "caption empty. Pass 1 to 1,000 characters"),
        ({"caption": ["word " * 20_000]}, {}, "caption too long. Pass 1 to 1,000 characters"),
        ({"depth": [np.ones((2, 2, 2), np.float16)]}, {}, r"one sample has shape \(2, 2, 2\); it must have 2 axes"),
        ({"depth": [b"\x93NUMPY"]}, {}, "These 6 bytes are not a 'depth'"),
        ({"depth": [np.ones((2, 2)), np.ones((3, 3))]}, {}, "different shapes.* Send one request for each shape"),
        ({"rgb": [IMAGE], "caption": ["a", "b"]}, {}, "same number of samples"),
    ],
)
def test_wrong_requests_are_refused_in_one_sentence(served, conditions, params, message):
    with pytest.raises(ValueError, match=message) as caught:
        served.prepare(conditions, **{"targets": ["depth"]} | params)
    assert "\n" not in str(caught.value)


def test_images_of_too_many_pixels_are_refused_before_they_are_decoded(served):
    small = png(np.zeros((1, 1), np.uint8))
    header = b"IHDR" + (30_000).to_bytes(4, "big") * 2 + small[24:29]
    large = small[:12] + header + zlib.crc32(header).to_bytes(4, "big") + small[33:]
    with pytest.raises(ValueError, match=r"too many pixels. Use .* of up to 25,000,000 pixels"):
        served.prepare({"rgb": [large]}, targets=["depth"])


@pytest.mark.parametrize(
    "value",
    [
        [{"foo": 1}],
        {"instances": [{"foo": 1}]},
        {"instances": {"box": [0, 0, 1, 1]}},
        {"instances": [{"box": [0, 0, 64, 64], "class_name": "sphere"}]},
        {"instances": [{"box": [0, 0, 1], "class_name": "sphere"}]},
        {"instances": [{"box": [0, 0, 1, None], "class_name": "sphere"}]},
        {"instances": [{"box": [0, 0, 1, float("nan")], "class_name": "sphere"}]},
        {"instances": [{"box": [0, 0, 1, 1], "class_name": 3}]},
        {"instances": [{"box": [0, 0, 1, 1], "class_name": "sphere", "score": "high"}]},
    ],
)
def test_boxes_of_another_form_are_refused(value):
    with pytest.raises(ValueError, match=r"Input 'det' must be \{\"instances\": .* with sides from 0 to 1\.$"):
        check_boxes("det", value)
    check_boxes("det", {"instances": [{"box": [0, 0.5, 1, 1], "class_name": "sphere"}]})
    check_boxes("det", {"instances": []})


@pytest.mark.parametrize(("name", "shape"), [("rgb", (2, 4, 6, 3)), ("normal", (2, 4, 6, 3)), ("semseg", (2, 4, 6))])
def test_images_as_png_are_lossless(name, shape):
    values = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)
    texts = formatted(name, values, "png")
    np.testing.assert_array_equal([decode(name, base64.b64decode(text)) for text in texts], values)
    assert formatted(name, values, "array") is values


def test_values_that_are_no_images_stay_as_they_are():
    features, texts = np.ones((2, 2, 2, 3), np.float16), ["a", "b"]
    assert formatted("clip", features, "png") is features and formatted("caption", texts, "png") is texts
