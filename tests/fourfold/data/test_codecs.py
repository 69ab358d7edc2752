"""Encoding of values as shard members."""

import io
import json
import pickle

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from PIL import Image

from fourfold.data import codecs
from fourfold.data.captions import Captions, captions_of

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


@settings(max_examples=80, deadline=None)
@given(
    st.lists(
        st.text(st.characters(codec="utf-8")) | st.sampled_from(['["a"]', '["a","b"]', '["', "[]"]), min_size=1, max_size=4
    )
)
def test_several_captions_are_a_lossless_list_as_the_loader_of_4m_reads_it(texts):
    value = Captions(texts[0], texts[1:])
    content, extension = codecs.encode("caption", value), codecs.extension("caption", value)
    decoded = codecs.decode("caption", content)
    assert (
        decoded == texts[0]
        and captions_of(decoded) == tuple(texts)
        and captions_of(pickle.loads(pickle.dumps(value))) == tuple(texts)
    )
    if len(texts) > 1:
        assert extension == "json" and json.loads(content) == texts
    else:
        assert content.decode() == texts[0] if extension == "txt" else json.loads(content) == texts
        assert type(decoded) is str


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


@settings(deadline=None, max_examples=60)
@given(
    arrays.arrays(
        st.sampled_from(["<i2", ">i2", "<i4", "<f2", "|u1"]),
        arrays.array_shapes(min_dims=0, max_dims=3, min_side=0, max_side=4),
    ),
    st.integers(0, 200),
    st.binary(max_size=3),
)
def test_npy_files_are_read_as_numpy_reads_them(array, cut, extra):
    buffer = io.BytesIO()
    np.lib.format.write_array(buffer, array, version=(1, 0), allow_pickle=False)
    ours = codecs._read_npy(buffer.getvalue())
    assert ours.dtype == array.dtype and ours.shape == array.shape and ours.tobytes() == array.tobytes()
    ours.fill(1)  # as with numpy, values may be changed
    damaged = buffer.getvalue()[:cut] + extra
    if len(damaged) != len(buffer.getvalue()):  # other values in as many bytes are an array as well
        with pytest.raises(ValueError, match=r"."):
            codecs._read_npy(damaged)


@pytest.mark.parametrize("header", [b"{'descr': (\0\0(\n", b"(" * 5000, b"{'shape': (\n" * 90])
@pytest.mark.parametrize("version", [b"\x01\x00", b"\x02\x00"])
def test_npy_header_that_is_no_literal_is_a_value_error(header, version):
    length = len(header).to_bytes(2 if version == b"\x01\x00" else 4, "little")
    with pytest.raises(ValueError, match=r"."):
        codecs._read_npy(b"\x93NUMPY" + version + length + header)


def test_npy_header_that_lies_about_its_size_is_rejected_before_any_allocation():
    buffer = io.BytesIO()
    np.lib.format.write_array_header_1_0(buffer, {"descr": "<i2", "fortran_order": False, "shape": (10**6, 10**9)})
    with pytest.raises(ValueError, match="bytes, there are 0"):
        codecs.decode("tok_rgb", buffer.getvalue())
