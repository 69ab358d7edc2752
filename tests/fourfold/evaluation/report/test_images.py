import numpy as np

from fourfold.evaluation.report.answers import picture_of


def test_edges_are_dark_on_white():
    edges = np.zeros((4, 4), np.uint8)
    edges[1, 2] = 255
    picture = picture_of("canny_edge", edges, None)
    assert picture.shape == (4, 4, 3) and picture[1, 2].tolist() == [0, 0, 0] and picture[0, 0].tolist() == [255, 255, 255]


def test_a_palette_is_shown_as_stripes_of_its_colors_from_left_to_right():
    palettes = {"1": [[9, 9, 9]], "3": [[255, 0, 0], [0, 255, 0], [0, 0, 255]]}
    picture = picture_of("color_palette", palettes, None)
    width = picture.shape[1]
    assert [picture[0, width * part // 6].tolist() for part in (1, 3, 5)] == palettes["3"]
    assert picture_of("color_palette", {}, None).mean() == 128
