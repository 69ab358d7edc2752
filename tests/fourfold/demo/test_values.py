"""Values as the page shows them, against the values themselves."""

import base64
import json

import numpy as np
import pytest
from stand_in import LABELS, answer

from fourfold.data.codecs import decode
from fourfold.demo.page import DemoPage
from fourfold.demo.values import from_json, opened, present, view


@pytest.mark.parametrize("label", LABELS)
def test_file_of_a_view_is_the_value(label):
    value = from_json(label, answer("1", {}, 3)[label])
    stored = decode(label, base64.b64decode(view(label, value)["file"]["base64"]))
    if isinstance(value, np.ndarray):
        assert stored.dtype == value.dtype and np.array_equal(stored, value)
    else:
        assert stored == value


def test_views_are_json_and_numbers_are_exact():
    found = json.loads(json.dumps(present(answer("1", {}, 0))))
    assert list(found) == LABELS
    depth = found["depth"]["numbers"]
    values = np.frombuffer(base64.b64decode(depth["base64"]), depth["dtype"]).reshape(depth["shape"])
    assert np.array_equal(values, np.float32(np.float16(answer("1", {}, 0)["depth"])))
    assert found["caption"]["text"] == "version 1 saw a sphere with seed 0" and "image" in found["clip"]


def test_edited_value_is_read_as_the_shards_hold_it():
    classes = answer("1", {}, 0)["semseg"]
    assert np.array_equal(decode("semseg", base64.b64decode(opened("semseg", classes)["file"]["base64"])), np.uint8(classes))
    boxes = {"instances": [{"box": [0, 0, 1, 1], "class_name": "box", "score": 1.0}]}
    assert opened("det", boxes)["json"] == boxes


@pytest.mark.parametrize(
    ("label", "content", "sentence"),
    [
        ("dpeth", b"", "Unknown label 'dpeth'. Choose one of rgb"),
        ("rgb", b"notes", "The file cannot be used: image unreadable. Use a JPEG, PNG"),
        ("depth", b"notes", "These 5 bytes are not a 'depth' (npy)"),
        ("depth", [[1, 2], [3]], "inhomogeneous"),
        ("semseg", [[300]], "300"),
        ("det", {"instances": [{"box": [0, 0, 2, 1], "class_name": "box"}]}, "with sides from 0 to 1"),
    ],
)
def test_wrong_input_is_refused(label, content, sentence):
    with pytest.raises(ValueError, match=r".") as caught:
        opened(label, content)
    assert sentence in str(caught.value)


def test_labels_have_the_order_of_the_page():
    described = DemoPage().describe({"inputs": ["caption", "rgb", "clip", "depth"], "outputs": ["det", "semseg"], "params": {}})
    assert described == {"inputs": ["rgb", "depth", "caption", "clip"], "outputs": ["semseg", "det"]}
    assert DemoPage().about()["notice"] == "" and DemoPage(notice="no device").about()["notice"] == "no device"
    assert DemoPage().about()["examples"] == [] and DemoPage().about()["captions"]
