"""Images of modalities."""

import numpy as np

from fourfold.images import Drawing, draw


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
