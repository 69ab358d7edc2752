"""Encoding of values as shard members."""

import io
import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from PIL import Image

from fourfold.data import codecs

SIDES = st.integers(1, 12)


@settings(max_examples=30, deadline=None)
@given(SIDES.flatmap(lambda side: arrays.arrays(np.uint8, (side, 5, 3))))
def test_images_are_lossless_standard_png(image):
    content = codecs.encode("rgb", image)
    assert np.array_equal(codecs.decode("rgb", content), image)
    assert np.array_equal(np.asarray(Image.open(io.BytesIO(content))), image)
    assert codecs.encode("rgb", image.copy()) == content


@settings(max_examples=30, deadline=None)
@given(arrays.arrays(np.int16, st.tuples(st.integers(1, 3), st.integers(0, 9))))
def test_tokens_are_lossless_under_every_name(tokens):
    for name in ("tok_rgb", "caption", "det"):
        content = codecs.encode(name, tokens)
        decoded = codecs.decode(name, content)
        assert decoded.dtype == np.int16 and np.array_equal(decoded, tokens)
        assert np.array_equal(np.load(io.BytesIO(content), allow_pickle=False), tokens)


@settings(max_examples=50, deadline=None)
@given(st.text(st.characters(codec="utf-8")))
def test_captions_are_lossless(caption):
    assert codecs.decode("caption", codecs.encode("caption", caption)) == caption


def test_depth_is_stored_as_half_precision_meters():
    depth = np.linspace(0.1, 12, 16, dtype=np.float64).reshape(4, 4)
    decoded = codecs.decode("depth", codecs.encode("depth", depth))
    assert decoded.dtype == np.float16 and np.allclose(decoded, depth, rtol=1e-3)


def test_boxes_are_stored_also_under_the_name_of_4m():
    value = {"instances": [{"box": [0.1, 0.2, 0.3, 0.4], "class_name": "cone", "score": 0.9}]}
    stored = codecs.encode("det", value)
    rows = [one["boxes"] + [one["class_name"], one["score"]] for one in json.loads(stored)["instances"]]
    assert rows == [[0.1, 0.2, 0.3, 0.4, "cone", 0.9]]
    assert codecs.decode("det", stored) == value


def test_equal_json_has_equal_bytes_for_any_order_of_keys():
    left = codecs.encode("det", {"instances": [], "b": 1})
    assert left == codecs.encode("det", {"b": 1, "instances": []})
    assert json.loads(left) == codecs.decode("det", left)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("rgb", np.zeros((4, 4), np.uint8)),
        ("rgb", np.zeros((4, 4, 3), np.float32)),
        ("semseg", np.zeros((4, 4, 3), np.uint8)),
        ("depth", np.array([[np.inf]])),
        ("depth", np.array([[1e6]])),
        ("tok_rgb", np.array([[40000]])),
        ("tok_rgb", np.array([[0.5]])),
        ("tok_rgb", np.zeros(4, np.int16)),
        ("caption", b"bytes"),
        ("det", {"score": float("nan")}),
    ],
)
def test_value_that_does_not_fit_its_modality_is_refused(name, value):
    with pytest.raises(ValueError, match=f"The value cannot be stored as '{name}'"):
        codecs.encode(name, value)


@pytest.mark.parametrize("name", ["rgb", "depth", "semseg", "det", "caption", "tok_rgb"])
def test_damaged_bytes_are_an_error_that_names_the_modality(name):
    for content in (b"\xff\xfe garbage", b"\x93NUMPY", b"\x89PNG\r\n\x1a\n12"):
        with pytest.raises(ValueError, match=f"are not a '{name}'"):
            codecs.decode(name, content)


def test_pickled_arrays_are_never_loaded():
    buffer = io.BytesIO()
    np.save(buffer, np.array([{}], dtype=object), allow_pickle=True)
    with pytest.raises(ValueError, match="are not a 'depth'"):
        codecs.decode("depth", buffer.getvalue())


def test_unknown_name_is_an_error_with_the_known_ones():
    with pytest.raises(ValueError, match=r"Unknown modality 'dpeth'. Did you mean 'depth'\? Known: .*depth"):
        codecs.encode("dpeth", np.zeros((2, 2)))
