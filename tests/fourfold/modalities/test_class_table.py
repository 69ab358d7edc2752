"""The table of classes."""

import numpy as np
import pytest
from pydantic import ValidationError

from fourfold.modalities import ClassTable

TABLE = ClassTable(names=("sky", "road", "car"), ignored=(255,), background=(0,), things=(2,))


def test_table_survives_json():
    assert ClassTable.model_validate_json(TABLE.model_dump_json()) == TABLE
    assert ClassTable.model_validate(TABLE.model_dump(mode="json")) == TABLE


def test_ids_names_and_counts():
    assert TABLE.num_classes == 3
    assert TABLE.id_of("road") == 1
    assert TABLE.thing_names == ("car",)
    with pytest.raises(ValueError, match=r"Unknown class 'cat'. Did you mean 'car'\? Known: car, road, sky"):
        TABLE.id_of("cat")


def test_roles_of_ids_in_any_shape():
    ids = np.array([[0, 1], [2, 255]], np.uint8)
    np.testing.assert_array_equal(TABLE.is_background(ids), [[True, False], [False, False]])
    np.testing.assert_array_equal(TABLE.is_ignored(ids), [[False, False], [False, True]])


def test_ids_that_are_no_class_are_an_error():
    TABLE.check_ids(np.array([0, 1, 2, 255], np.uint8))
    with pytest.raises(ValueError, match=r"Class id 7 is out of range; allowed: 0 to 2 and 255 \(ignored\)"):
        TABLE.check_ids(np.array([[0, 7]], np.uint8))
    with pytest.raises(ValueError, match="Class id 255 is out of range; allowed: 0 to 1"):
        ClassTable(names=("a", "b")).check_ids(np.array([255], np.uint8))


def test_colors_are_those_given_or_those_of_pascal_voc():
    chosen = ClassTable(names=("a", "b"), colors=((1, 2, 3), (4, 5, 6)))
    assert chosen.palette.shape == (256, 3) and chosen.palette.dtype == np.uint8
    assert chosen.palette[:3].tolist() == [[1, 2, 3], [4, 5, 6], [0, 0, 0]]
    # aeroplane, bicycle, bird of the VOC devkit
    voc = ClassTable(names=tuple("abcdefghi")).palette
    assert voc[[1, 2, 3, 8]].tolist() == [[128, 0, 0], [0, 128, 0], [128, 128, 0], [64, 0, 0]]


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"names": ()}, "at least 1 item"),
        ({"names": ("a", "a")}, "repeated: a"),
        ({"names": ("a", "b"), "background": (2,)}, r"background is \[2\]; allowed: different ids from 0 to 1"),
        ({"names": ("a", "b"), "things": (1, 1)}, r"things is \[1, 1\]"),
        ({"names": ("a", "b"), "ignored": (256,)}, r"ignored is \[256\]; allowed: different ids from 0 to 255"),
        ({"names": ("a", "b"), "background": (0,), "things": (0,)}, r"\[0\] are listed as background and as things"),
        ({"names": ("a", "b"), "colors": ((0, 0, 0),)}, "1 colors for 2 classes"),
        ({"names": ("a",), "colors": ((0, 0, 256),)}, "RGB values from 0 to 255"),
    ],
)
def test_tables_that_contradict_themselves_are_refused(fields, message):
    with pytest.raises(ValidationError, match=message):
        ClassTable(**fields)
