"""One value of a request: what is accepted, and the sentence about what is not."""

import base64

import numpy as np
import pytest

from fourfold_ops.registry.values import MAX_NUMBERS, read

FILE = b"\x89PNG not really"


def test_files_come_as_base64_bytes_or_data_urls():
    text = base64.b64encode(FILE).decode()
    for value in (FILE, bytearray(FILE), text, f"data:image/png;base64,{text}"):
        assert read("rgb", "uint8", value) == FILE


@pytest.mark.parametrize(
    "value", [[[1, 2]], np.array([[1, 2]]), np.array([[1.0, 2.0]]), [np.array([1, 2])], np.array([[1, 2]], object)]
)
def test_whole_numbers_become_the_declared_dtype(value):
    found = read("rgb", "uint8", value)
    assert found.dtype == np.uint8 and found.tolist() == [[1, 2]]


def test_floats_become_float16():
    found = read("depth", "float16", [[1, 2.5]])
    assert found.dtype == np.float16 and found.tolist() == [[1.0, 2.5]]


@pytest.mark.parametrize(
    ("kind", "value", "message"),
    [
        ("uint8", [[0.0, 0.5], [1.0, 0.25]], "decimal numbers from 0 to 1; uint8 allows whole .* Multiply by 255 and round"),
        (
            "uint8",
            np.ones((2, 2)),
            "decimal numbers from 1 to 1; .* Multiply by 255 and round",
        ),
        ("uint8", [[1.5, 200.0]], "decimal numbers from 1.5 to 200; uint8 allows whole numbers from 0 to 255.$"),
        ("uint8", [[-1, 300]], "numbers from -1 to 300; uint8 allows whole numbers from 0 to 255"),
        ("uint8", [[1, None]], "must be nested lists of numbers, got null or text"),
        ("uint8", [[1, float("nan")]], "null, NaN or infinite"),
        ("uint8", [[1], [1, 2]], "nested lists of equal lengths"),
        ("uint8", 300, "got a number"),
        ("uint8", {"a": 1}, "got an object"),
        ("uint8", [], "is empty"),
        ("uint8", "semseg.png", "a text that is not base64"),
        ("float16", [1.0, None], "null or text"),
        ("float16", [1e5], r"finite numbers between -65504 and 65504 \(float16\), without null"),
        ("float16", [True], "got a list"),
        ("str", 3, "must be text, got a number"),
        ("str", None, "must be text, got nothing"),
    ],
)
def test_wrong_values_are_refused_in_one_sentence(kind, value, message):
    with pytest.raises(ValueError, match=message) as caught:
        read("x", kind, value)
    assert str(caught.value).startswith("Input 'x' ") and "\n" not in str(caught.value)


def test_huge_lists_are_refused_before_they_are_read():
    row = [0] * 3
    with pytest.raises(ValueError, match=r"about 12,000,000 numbers; up to 2,000,000 are allowed. Send base64 of a PNG"):
        read("rgb", "uint8", [[row] * 2000] * 2000)
    assert MAX_NUMBERS >= 512 * 512 * 3
