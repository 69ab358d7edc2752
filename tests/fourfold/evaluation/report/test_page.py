"""The page: whole by itself, honest about what is missing, safe against what it shows."""

import json
import re
import xml.etree.ElementTree as ElementTree
from html.parser import HTMLParser

import numpy as np
import pytest
from PIL import Image

from fourfold.evaluation.report import charts
from fourfold.evaluation.report import images as pictures
from fourfold.evaluation.report.decoders import DecoderRow
from fourfold.evaluation.report.gallery import GalleryRow, gallery_image, gallery_png
from fourfold.evaluation.report.page import write_report

VOID = {"meta", "img", "br", "link", "input", "hr"}
FIGURE = {"value": 0.7, "trivial": 0.2, "shuffled": 0.25, "teacher": None, "ci95": [0.65, 0.75]}
ARMS = {arm: {"mean": 0.5 + n / 10, "std": 0.02, "n": 3} for n, arm in enumerate(("baseline", "scratch", "pretrained"))}
METRICS = {
    "out_of_the_box": {
        "rgb->semseg": {"miou": FIGURE, "new_metric": FIGURE},
        "rgb->depth": {"abs_rel": {**FIGURE, "teacher": 0.1}},
    },
    "transfer": {"vqa_200": {"accuracy": ARMS}, "vqa_500": {"accuracy": ARMS}, "attributes_200": {"mean_accuracy": ARMS}},
    "teachers": {"depth/abs_rel": 0.06},
    "seconds": {"ingestion": 12.0, "pretraining": 600.0},
    "samples": 600,
}
HISTORY = [
    {"step": s, "loss": 5 / s, **({"validation/loss": 6 / s, "validation/det": 4 / s} if s % 2 == 0 else {})}
    for s in range(1, 9)
]


class Nesting(HTMLParser):
    """Fails when a tag is not closed in its place."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.sources: list[str] = []
        self.without_words: list[str] = []

    def handle_starttag(self, tag, attributes):
        found = dict(attributes)
        self.sources += [v for k, v in attributes if k in ("src", "href", "xlink:href")]
        if tag == "img" and not found.get("alt"):
            self.without_words.append(tag)
        if tag not in VOID and not self.get_starttag_text().endswith("/>"):
            self.open.append(tag)

    def handle_startendtag(self, tag, attributes):
        self.handle_starttag(tag, attributes)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag


def a_row(caption: str = "a red sphere") -> GalleryRow:
    gray = np.full((64, 64, 3), 128, np.uint8)
    drawn = dict.fromkeys(("depth", "normal", "semseg", "det", "clip"), gray)
    without = {name: drawn[name] for name in ("depth", "normal", "semseg", "det")}
    rows = {"teacher": drawn, "student": drawn, "truth": without}
    return GalleryRow("test-000000", gray, caption, "a blue box", rows, {"rgb": gray, "semseg": gray})


def parsed(html: str) -> Nesting:
    parser = Nesting()
    parser.feed(html)
    assert parser.open == []
    return parser


def test_the_whole_page_is_well_formed_and_loads_nothing_from_elsewhere():
    page = write_report(
        METRICS, [a_row(), a_row()], [{"task": "vqa", "prompt": "q", "answer": "a", "pretrained": "a"}], HISTORY, {"Seed": "0"}
    )
    parser = parsed(page)
    assert all(source.startswith(("data:image/png", "#")) for source in parser.sources)
    assert not re.search(r"url\(|@import|<script", page)
    assert parser.without_words == []
    assert {source for source in parser.sources if source.startswith("#")} <= {
        f"#{i}" for i in re.findall(r'id="([^"]+)"', page)
    }


def test_figures_of_the_table_are_on_the_page_with_their_intervals():
    page = write_report(METRICS)
    for text in ("0.700", "0.650 to 0.750", "0.100", "RGB → segmentation", "new metric", "0.700 ± 0.020", "10.2 minutes"):
        assert text in page
    assert json.dumps(METRICS) and write_report(METRICS) == page


@pytest.mark.parametrize("metrics", [{}, {"out_of_the_box": {"rgb->det": {"ap50": dict.fromkeys(FIGURE)}}}])
def test_what_is_missing_is_left_out(metrics):
    page = write_report(metrics)
    parsed(page)
    assert 'id="transfer"' not in page


def test_two_decoders_stand_side_by_side_only_where_there_are_two():
    single = {"rgb/psnr": 25.0, "rgb/codebook_use": 0.9}
    both = single | {"rgb/vq/psnr": 24.5, "rgb/diffusion/psnr": 21.25, "rgb/diffusion/odd": 1.0, "rgb/vq/odd": 3.0}
    gray = [np.full((8, 8, 3), shade, np.uint8) for shade in (10, 20)]
    rows = [DecoderRow("rgb", ["a", "b"], dict.fromkeys(("original", "vq", "diffusion"), gray))]
    without, page = write_report({"tokenizers": single}), write_report({"tokenizers": both}, decoders=rows)
    assert "wo decoders" not in without
    parser = parsed(page)
    assert parser.without_words == [] and page.count("data:image/png") == 6
    table = page[page.index('id="decoders"') :]
    assert re.search(r"RGB · PSNR.*?<td>24\.5</td><td>21\.2</td>", table, re.DOTALL)
    plain = page[page.index('id="parts"') : page.index('id="decoders"')]
    assert "rgb · psnr" in plain and "diffusion" not in plain
    assert write_report({"tokenizers": both})[: page.index("<section")] == page[: page.index("<section")]


def test_captions_cannot_become_markup():
    page = write_report(METRICS, [a_row("<script>alert(1)</script>\" onload='x'")])
    assert "<script" not in page
    parsed(page)


def test_charts_are_xml_and_put_the_better_figure_to_the_right():
    for lower in (True, False):
        drawn = charts.strip({"value": 0.1, "trivial": 0.6}, [0.05, 0.15], lower, "x < y & z")
        root = ElementTree.fromstring(drawn)
        student, trivial = float(root.find("circle").get("cx")), float(root.findall("line")[1].get("x1"))
        assert (student > trivial) == lower
    assert charts.strip({"value": None, "teacher": 0.3}, None, False, "") == ""
    for drawn in (
        charts.arms_chart({"200 labels": [("scratch", 0.5, 0.0)]}, "a"),
        charts.curves({"loss": [(1, 1.0)]}, "b"),
        charts.bars({"x_y": 0.0}, "c"),
    ):
        ElementTree.fromstring(drawn)


def test_the_picture_of_the_readme_is_the_same_bytes_every_time():
    rows = [a_row(), a_row("a very long caption " * 10)]
    assert gallery_png(rows) == gallery_png(rows)
    assert isinstance(gallery_image(rows, most=1), Image.Image)
    with pytest.raises(ValueError, match="gallery_samples"):
        gallery_image([])


def test_nearer_is_lighter_and_normals_have_the_usual_colors():
    drawn = pictures.depth_picture(np.array([[2.0, 3.0, 5.0, 10.0]]), 2, 10).astype(int).sum(-1)[0]
    assert all(drawn[:-1] > drawn[1:])
    facing_viewer_up_right = np.array([[[0.0, 0, -1], [0, -1, 0], [1, 0, 0]]])
    assert pictures.normal_picture(facing_viewer_up_right).argmax(-1).tolist() == [[2, 1, 0]]


def test_boxes_stay_inside_the_picture_whatever_they_are():
    gray = np.full((8, 8, 3), 128, np.uint8)
    boxes = [{"box": [-1, 0.5, 2, 0.2], "class_name": "sphere"}, {"box": [0.5, 0.5, 0.5, 0.5], "class_name": "unknown"}]
    assert pictures.box_picture(gray, boxes).shape == (24, 24, 3)


def test_features_are_drawn_the_same_up_to_nothing():
    features = np.random.default_rng(0).normal(size=(3, 4, 4, 10))
    directions = pictures.feature_directions(features)
    assert pictures.feature_picture(features[0], directions, 64).shape == (64, 64, 3)
    assert pictures.feature_picture(features[0, ..., :1], pictures.feature_directions(features[..., :1]), 8).shape == (8, 8, 3)
