"""Images of modalities."""

import numpy as np

from fourfold.images import IGNORED_COLOR, JOINT_COLOR, LEFT_COLOR, RIGHT_COLOR, Drawing, draw
from fourfold.modalities import ClassTable


def test_edges_are_dark_on_white():
    edges = np.zeros((4, 4), np.uint8)
    edges[1, 2] = 255
    image = draw("canny_edge", edges, Drawing())
    assert image.shape == (4, 4, 3) and image[1, 2].tolist() == [0, 0, 0] and image[0, 0].tolist() == [255, 255, 255]


def test_a_palette_is_drawn_as_stripes_from_left_to_right():
    palettes = {"1": [[9, 9, 9]], "3": [[255, 0, 0], [0, 255, 0], [0, 0, 255]]}
    image = draw("color_palette", palettes, Drawing())
    width = image.shape[1]
    assert [image[0, width * part // 6].tolist() for part in (1, 3, 5)] == palettes["3"]
    assert draw("color_palette", {}, Drawing()).mean() == 128


def test_people_are_drawn_with_joints_and_the_limbs_between_them():
    points = {"left_hip": [0.75, 0.25], "left_knee": [0.75, 0.75], "right_hip": [0.25, 0.25], "right_knee": [0.25, 0.75]}
    person = {"box": [0, 0, 1, 1], "points": points | {"nose": [0.5, 0.9]}, "score": 1.0}
    image = draw("keypoints", {"instances": [person]}, Drawing(rgb=np.full((32, 32, 3), 255, np.uint8)))
    assert image.shape == (96, 96, 3)
    assert tuple(image[48, 72]) == LEFT_COLOR and tuple(image[48, 24]) == RIGHT_COLOR  # halfway between hip and knee
    assert all(tuple(image[int(96 * y), int(96 * x)]) == JOINT_COLOR for x, y in person["points"].values())
    assert draw("keypoints", {"instances": []}, Drawing()).std() == 0


def test_pixels_without_a_class_are_gray_and_boxes_have_names():
    table = ClassTable(names=("sky", "cat"), ignored=(255,))
    image = draw("semseg", np.array([[0, 1, 255]], np.uint8), Drawing(class_table=table))
    assert image[0].tolist() == [*table.palette[:2].tolist(), list(IGNORED_COLOR)]
    box = {"box": [0, 0, 1, 1], "class_name": "cat", "score": 1.0}
    named, other = (
        draw("det", {"instances": [box | {"class_name": name}]}, Drawing(class_table=ClassTable(names=(name,))))
        for name in ("cat", "dog")
    )
    assert (named != other).any() and (named[20:, 40:] == other[20:, 40:]).all()  # only the name differs
