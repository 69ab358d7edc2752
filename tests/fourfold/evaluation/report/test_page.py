"""The page: self-contained, complete, and safe against the text that it shows."""

import json
import re
import xml.etree.ElementTree as ElementTree
from html.parser import HTMLParser

import numpy as np
import pytest
from PIL import Image

from fourfold import images
from fourfold.evaluation.report import charts
from fourfold.evaluation.report.decoders import DecoderRow
from fourfold.evaluation.report.definitions import Definitions
from fourfold.evaluation.report.gallery import Gallery, GalleryRow, gallery_image, gallery_png
from fourfold.evaluation.report.page import ReportData, render_images, write_report
from fourfold.metrics.metric import Metric
from fourfold.scenes.world.vocabulary import CLASS_TABLE
from fourfold.transfer.runs import describe_tasks

VOID = {"meta", "img", "br", "link", "input", "hr"}
ENTRY = {"value": 0.7, "trivial": 0.2, "shuffled": 0.25, "teacher": None, "ci95": [0.65, 0.75]}
ARMS = {arm: {"mean": 0.5 + n / 10, "std": 0.02, "n": 3} for n, arm in enumerate(("baseline", "scratch", "pretrained"))}
METRICS = {
    "out_of_the_box": {
        "rgb->semseg": {"miou": ENTRY, "new_metric": ENTRY},
        "rgb->depth": {"abs_rel": {**ENTRY, "teacher": 0.1}},
    },
    "transfer": {"vqa_200": {"accuracy": ARMS}, "vqa_500": {"accuracy": ARMS}, "attributes_200": {"mean_accuracy": ARMS}},
    "teachers": {"depth/abs_rel": 0.06},
    "samples": 600,
}
HISTORY = [
    {"step": s, "loss": 5 / s, **({"validation/loss": 6 / s, "validation/det": 4 / s} if s % 2 == 0 else {})}
    for s in range(1, 9)
]


LABELS = {
    "train": {"samples": 10, "boxes/kept": 30, "boxes/dropped_score": 8, "boxes/dropped_class": 2, "boxes/dropped_shape": 0},
    "test": {"samples": 5, "boxes/kept": 10, "boxes/dropped_score": 0, "boxes/dropped_class": 0, "normals/disagree": 1},
}
CELLS = [{"title": "input", "text": "<b>"}, {"title": "error", "image": "data:image/png;base64,AA=="}]
CASE = {"key": "test-1", "score": 0.25, "cells": CELLS}
WORST = {"metric": "miou", "as_bad_as_the_last": 5, "cases": [CASE, CASE]}


class Nesting(HTMLParser):
    """A parser that fails if a tag is not closed where it must be."""

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
    rows = {"teacher": drawn, "student": drawn, "truth": without, "error": {"depth": gray}}
    return GalleryRow("test-000000", gray, caption, "a blue box", rows, {"rgb": gray, "semseg": gray})


def a_gallery(*rows: GalleryRow) -> Gallery:
    columns = {"depth": "Depth", "normal": "Normals", "semseg": "Segmentation", "clip": "CLIP features", "det": "Boxes"}
    return Gallery(list(rows), columns, {"rgb": "image", "semseg": "segmentation"}, CLASS_TABLE)


def page_of(metrics: dict, **data) -> str:
    return write_report(ReportData(metrics, transfer_tasks=describe_tasks(["vqa", "attributes"]), **data))


def parsed(html: str) -> Nesting:
    parser = Nesting()
    parser.feed(html)
    assert parser.open == []
    return parser


def test_the_page_is_well_formed_and_loads_no_other_files():
    page = page_of(
        METRICS,
        sections=render_images(a_gallery(a_row(), a_row())),
        examples=[{"task": "vqa", "prompt": "q", "answer": "a", "pretrained": "a"}],
        history=HISTORY,
        facts={"Seed": "0"},
        worst={"rgb->semseg": WORST},
        labels=LABELS,
        notice="The numbers mean nothing.",
    )
    parser = parsed(page)
    assert all(source.startswith(("data:image/png", "#")) for source in parser.sources)
    assert not re.search(r"url\((?!#)|@import|<script", page)  # url(#...) refers to a part of the same chart
    assert parser.without_words == []
    assert {source for source in parser.sources if source.startswith("#")} <= {
        f"#{i}" for i in re.findall(r'id="([^"]+)"', page)
    }


def test_metrics_are_on_the_page_with_their_intervals():
    page = page_of(METRICS)
    for text in (
        "0.700",
        "0.650 to 0.750",
        "0.100",
        "RGB → segmentation",
        "new metric",
        "0.700</a> ± 0.020",
        "Visual questions",
        "AbsRel",
    ):
        assert text in page
    assert json.dumps(METRICS) and page_of(METRICS) == page


@pytest.mark.parametrize("metrics", [{}, {"out_of_the_box": {"rgb->det": {"ap50": dict.fromkeys(ENTRY)}}}])
def test_what_is_missing_is_left_out(metrics):
    page = page_of(metrics)
    parsed(page)
    assert 'id="transfer"' not in page


def test_two_decoders_are_compared_if_there_are_two():
    single = {"rgb/psnr": 25.0, "rgb/codebook_use": 0.9}
    both = single | {"rgb/vq/psnr": 24.5, "rgb/diffusion/psnr": 21.25, "rgb/diffusion/odd": 1.0, "rgb/vq/odd": 3.0}
    gray = [np.full((8, 8, 3), shade, np.uint8) for shade in (10, 20)]
    rows = [DecoderRow("rgb", ["a", "b"], dict.fromkeys(("original", "vq", "diffusion"), gray))]
    without, page = page_of({"tokenizers": single}), page_of({"tokenizers": both}, sections=render_images(Gallery(), rows))
    assert "wo decoders" not in without
    parser = parsed(page)
    assert parser.without_words == [] and page.count("data:image/png") == 6
    table = page[page.index('id="decoders"') :]
    assert re.search(r"RGB · <a[^>]*>PSNR.*?<td>24\.5</td><td>21\.2</td>", table, re.DOTALL)
    plain = page[page.index('id="components"') : page.index('id="decoders"')]
    assert 'RGB · <a href="#metric-psnr">PSNR</a>' in plain and "diffusion" not in plain
    assert page_of({"tokenizers": both})[: page.index("<section")] == page[: page.index("<section")]


def test_captions_cannot_become_markup():
    page = page_of(METRICS, sections=render_images(a_gallery(a_row("<script>alert(1)</script>\" onload='x'"))))
    assert "<script" not in page
    parsed(page)


def mark_position(root: ElementTree.Element, name: str) -> float:
    svg = "{http://www.w3.org/2000/svg}"
    (group,) = [group for group in root.iter(f"{svg}g") if group.get("class") == name]
    return float(next(group.iter(f"{svg}use")).get("x"))


def test_charts_put_the_better_value_to_the_right():
    for lower in (True, False):
        drawn = charts.strip({"value": 0.1, "trivial": 0.6}, [0.05, 0.15], lower, "x < y & z")
        root = ElementTree.fromstring(drawn)
        student, trivial = (mark_position(root, name) for name in ("student", "trivial"))
        assert (student > trivial) == lower
        assert charts.strip({"value": 0.1, "trivial": 0.6}, [0.05, 0.15], lower, "x < y & z") == drawn
    assert charts.strip({"value": None, "teacher": 0.3}, None, False, "") == ""
    for drawn in (
        charts.arms_chart({"200 labels": [("scratch", 0.5, 0.0)]}, "a", {"scratch": "scratch"}),
        charts.curves({"loss": [(1, 1.0)]}, "b"),
    ):
        ElementTree.fromstring(drawn)


def test_the_gallery_explains_the_colors_of_what_it_shows():
    everything = render_images(a_gallery(a_row()))["gallery"]
    columns = {"semseg": "Segmentation", "keypoints": "Joints"}
    some = render_images(Gallery([a_row()], columns, {}, CLASS_TABLE))["gallery"]
    for words, where in (("far", everything), ("principal", everything), ("normals", everything), ("limbs", some)):
        assert words in where and words not in (some if where is everything else everything)
    assert "light is a wrong class; gray" in some and "a relative error of depth of 25 %, 60 degrees" in everything


def test_the_gallery_has_the_same_bytes_every_time():
    gallery = a_gallery(a_row(), a_row("a very long caption " * 10))
    assert gallery_png(gallery) == gallery_png(gallery)
    assert isinstance(gallery_image(gallery, max_rows=1), Image.Image)
    with pytest.raises(ValueError, match="gallery_samples"):
        gallery_image(Gallery())


def test_nearer_is_lighter_and_normals_have_the_usual_colors():
    drawn = images.depth_image(np.array([[2.0, 3.0, 5.0, 10.0]]), 2, 10).astype(int).sum(-1)[0]
    assert all(drawn[:-1] > drawn[1:])
    facing_viewer_up_right = np.array([[[0.0, 0, -1], [0, -1, 0], [1, 0, 0]]])
    assert images.normal_image(facing_viewer_up_right).argmax(-1).tolist() == [[2, 1, 0]]


def test_boxes_outside_the_image_are_clipped():
    gray = np.full((8, 8, 3), 128, np.uint8)
    boxes = [{"box": [-1, 0.5, 2, 0.2], "class_name": "sphere"}, {"box": [0.5, 0.5, 0.5, 0.5], "class_name": "unknown"}]
    assert images.box_image(gray, boxes, CLASS_TABLE).shape == (24, 24, 3)


def test_features_of_any_width_are_drawn():
    features = np.random.default_rng(0).normal(size=(3, 4, 4, 10))
    directions = images.feature_directions(features)
    assert images.feature_image(features[0], directions, 64).shape == (64, 64, 3)
    assert images.feature_image(features[0, ..., :1], images.feature_directions(features[..., :1]), 8).shape == (8, 8, 3)


def test_page_shows_what_ingestion_left_out_bounded_and_escaped():
    reasons = [f"reason {number:02d}" for number in range(25)]
    source = {
        "samples_dropped": {**dict.fromkeys(reasons, 1), "image unreadable": 1200},
        "archives_dropped": {"archive cut off": 2},
    }
    source["examples"] = {
        "sample": {**{one: ["x.png"] for one in reasons}, "image unreadable": ["<b>.jpg", "y.jpg"]},
        "archive": {"archive cut off": ["0.tar"]},
    }
    page = page_of({}, ingestion={"seen": 3225, "kept": {"train": 1900, "val": 100}, "by_source": {"photos": source}})
    parsed(page)
    assert "kept 2,000 of 3,225 samples:\ntrain 1,900, val 100." in page
    assert '<th scope="row">image unreadable</th><td>1,200 samples</td><td class="left">photos</td>' in page
    assert '<td class="text">&lt;b&gt;.jpg, y.jpg</td>' in page and "<td>2 archives</td>" in page
    assert page.count("<td>1 sample</td>") == 18 and "And 7 more reasons" in page
    whole = page_of({}, ingestion={"seen": 5, "kept": {"train": 5}, "by_source": {"photos": {"examples": {}}}})
    assert "Nothing was left out." in whole and 'id="data"' not in page_of({})


def test_every_number_of_the_tables_leads_to_a_definition_on_the_page():
    page = page_of(METRICS | {"tokenizers": {"rgb/codebook_use": 0.9}}, worst={"rgb->semseg": WORST})
    anchors, linked = set(re.findall(r'id="(metric-[^"]+)"', page)), re.findall(r'href="#(metric-[^"]+)">', page)
    assert set(linked) <= anchors and anchors <= set(linked)
    assert {"metric-miou", "metric-new-metric", "metric-abs-rel", "metric-accuracy", "metric-codebook-use"} <= anchors
    assert re.search(r'<td class="value"><a href="#metric-miou">0\.700</a>', page)
    assert "mean over classes of intersection over union" in page[page.index('id="definitions"') :]


def test_different_metrics_of_one_name_have_different_definitions():
    definitions = Definitions()
    one, other = Metric("f1", "F1", "of edges"), Metric("f1", "F1", "of words")
    assert [definitions.anchor(metric) for metric in (one, other, one)] == ["metric-f1", "metric-f1-2", "metric-f1"]


def test_worst_cases_name_the_sample_and_how_many_more_there_are():
    page = page_of(METRICS, worst={"rgb->semseg": WORST})
    parsed(page)
    assert "mIoU 0.250, and 3 more as bad as the last" in page
    assert "&lt;b&gt;" in page and page.count('src="data:image/png;base64,AA=="') == 2


def test_the_page_says_what_the_labelers_left_out():
    page = page_of(METRICS, labels=LABELS)
    row = '<th scope="row">boxes</th><td class="left">{}</td><td>{}</td><td>50</td><td>{} %</td>'
    assert row.format("low score", 8, "16.0") in page and "outside the image" not in page
    assert row.format("the segmentation has another class there", 2, "4.0") in page
    assert '<th scope="row">normals</th><td class="left">disagree</td><td>1</td><td>15</td>' in page


def test_a_headline_that_is_not_better_than_trivial_is_marked():
    entry = ENTRY | {"value": 0.2}
    marked = page_of({"out_of_the_box": {"rgb->semseg": {"miou": entry}, "rgb->depth": {"abs_rel": ENTRY}}})
    assert marked.count("not better than the trivial answer") == 2  # a lower mIoU, and a higher AbsRel
    assert "not better" not in page_of({"out_of_the_box": {"rgb->semseg": {"miou": ENTRY}}})


def test_the_notice_is_above_everything_else():
    page = page_of(METRICS, notice="The numbers mean <nothing>.")
    assert page.index("The numbers mean &lt;nothing&gt;.") < page.index("<h1>") and 'role="note"' not in page_of(METRICS)
