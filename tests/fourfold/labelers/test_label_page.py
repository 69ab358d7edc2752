"""The label page: what it finds least certain, what its limits would keep, and that it needs nothing but itself."""

import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).parents[2] / "support"))
import browser
from offline import loads

from fourfold.data.missing import Missing
from fourfold.data.shards import ShardSet, finish_split, write_columns
from fourfold.labelers import LabelingConfig, integrate_labels
from fourfold.labelers.page.page import label_page
from fourfold.modalities.class_table import ClassTable

TABLE = ClassTable(names=("ground", "ball", "<b>box</b>"), things=(1, 2))
SIDE, COUNT = 32, 20
FACING = np.array([128, 128, 0], np.uint8)


def tilted(degrees: float) -> np.ndarray:
    """Normals that are turned about the vertical axis, away from those of a plane that faces the camera."""
    angle = np.radians(degrees)
    normal = np.rint(np.array([np.sin(angle), 0, -np.cos(angle)]) * 127.5 + 127.5).astype(np.uint8)
    return np.broadcast_to(normal, (SIDE, SIDE, 3))


@pytest.fixture
def world(tmp_path: Path) -> tuple[ShardSet, ShardSet, LabelingConfig]:
    """Images and raw labels. Sample n: normals turned by 3 n degrees, a box with score 1 − n / 40, agreement n / 20."""
    keys, half = [f"photo-{n:02d}" for n in range(COUNT)], np.repeat(np.array([0, 1], np.uint8), SIDE // 2)
    columns: dict[str, list[Any]] = {
        "depth": [np.full((SIDE, SIDE), 4.0)] * COUNT,
        "normal": [tilted(3 * n) for n in range(COUNT)],
        "semseg": [np.broadcast_to(half, (SIDE, SIDE)).copy() for _ in keys],
        "det": [
            {"instances": [{"box": [0.5 - n / 40, 0.1, 1, 0.9], "class_name": "ball", "score": 1 - n / 40}]}
            for n in range(COUNT)
        ],
        "confidence": [{"semseg": n / COUNT} for n in range(COUNT)],
    }
    columns["canny_edge"] = [Missing("<script>no</script>"), *[np.zeros((SIDE, SIDE), np.uint8)] * (COUNT - 1)]
    images = {"rgb": [np.full((SIDE, SIDE, 3), 10 * n, np.uint8) for n in range(COUNT)], "caption": ["a ball"] * COUNT}
    for root, values in (("raw", columns), ("images", images)):
        named = {name: list(zip(keys, column, strict=True)) for name, column in values.items()}
        for number, rows in enumerate((slice(0, 12), slice(12, COUNT))):
            of_shard = {name: column[rows] for name, column in named.items()}
            write_columns(tmp_path / root, "val", f"shard-{number:05d}.tar", of_shard)
        finish_split(tmp_path / root, "val", list(values), class_tables={"semseg": TABLE})
    labelers = {
        "normal": "normals_from_depth",
        "canny_edge": "canny_edges",
        "semseg": {"kind": "fusion", "of": [{"kind": "precomputed", "path": "a", "classes": ["x", "y"]}] * 2},
    }
    return ShardSet(tmp_path / "images"), ShardSet(tmp_path / "raw"), LabelingConfig.model_validate({"labelers": labelers})


def with_limits(config: LabelingConfig, **limits: Any) -> LabelingConfig:
    return config.model_copy(update={"integration": config.integration.model_copy(update=limits)})


def test_the_least_certain_labels_come_first(world, tmp_path):
    images, raw, config = world
    labels, report = integrate_labels(raw, images, config, tmp_path / "labels")
    found = report["val"]["certainty"]
    numbers = {name: [int(one["key"][-2:]) for one in of["least"][:3]] for name, of in found.items()}
    assert numbers == {"normal/angle": [19, 18, 17], "det/score": [19, 18, 17], "det/inside": [19, 18, 17],
                       "semseg/confidence": [0, 1, 2]}  # fmt: skip
    assert found["normal/angle"]["least"][0]["value"] == pytest.approx(57, abs=1)
    assert found["det/score"]["least"][0]["value"] == pytest.approx(1 - 19 / 40)
    assert all(sum(of["histogram"]) == COUNT for of in found.values())
    page = label_page(images, labels, report, config)
    assert page == label_page(images, labels, report, config)
    # 12 cases of each measure: the image, the label and what it is compared with, if anything
    assert page.count("<figure>") == 48 and page.count("data:image/png;base64,") == 12 * (3 + 2 + 3 + 2)
    order = [page.index(text) for text in ("Agreement of teachers: semseg", "Normals against depth", "Scores of boxes")]
    assert sorted(order) == sorted(order, reverse=False) and "photo-19" in page
    assert "&lt;script&gt;no&lt;/script&gt;" in page and "<script>" not in page
    # What stricter limits would keep: normals within 30 degrees are those of samples 0 to 9 or 10
    row = page[page.index("<td>30</td>") :][:90]
    assert "10" in row or "11" in row
    assert loads(page) == []


def test_filters_leave_out_what_the_page_says(world, tmp_path):
    images, raw, config = world
    strict = with_limits(config, min_confidence={"semseg": 0.5}, disagreeing_normals="drop", max_normal_angle=31.0)
    labels, report = integrate_labels(raw, images, strict, tmp_path / "labels")
    missing = report["val"]["missing"]
    assert missing["semseg"] == {
        "filtered out: confidence below 0.5": {"count": 10, "examples": ["val/photo-00", "val/photo-01", "val/photo-02"]}
    }
    (reason, found) = next(iter(missing["normal"].items()))
    assert reason == "filtered out: more than 31 degrees from the normals of the depth" and found["count"] == 9
    kept = [one["__key__"] for one in labels.iterate("val", ["normal"]) if not isinstance(one["normal"], Missing)]
    assert kept == [f"photo-{n:02d}" for n in range(11)]
    assert "confidence" not in labels.modalities("val")
    page = label_page(images, labels, report, strict)
    assert "filtered out: confidence below 0.5" in page


def test_a_filter_needs_a_labeler_with_a_confidence():
    with pytest.raises(ValueError, match=r"names 'normal', whose labels have no confidence; those that have one: none"):
        LabelingConfig(labelers={"normal": "normals_from_depth"}, integration={"min_confidence": {"normal": 0.5}})


def test_the_page_fits_a_phone_and_asks_for_nothing(world, tmp_path):
    images, raw, config = world
    path = tmp_path / "labels.html"
    labels, report = integrate_labels(raw, images, config, tmp_path / "labels")
    path.write_text(label_page(images, labels, report, config), encoding="utf-8")
    with browser.started() as chromium:
        for size in (browser.PHONE, browser.DESKTOP):
            page, requests, problems = chromium.new_page(viewport=size), [], []
            page.on("request", lambda request, seen=requests: seen.append(request.url))
            page.on("console", lambda message, seen=problems: seen.append(message.text))
            page.goto(path.as_uri())
            assert page.evaluate("document.documentElement.scrollWidth") <= size["width"]
            assert {url for url in requests if not url.startswith("data:")} == {path.as_uri()} and not problems
            smallest = page.evaluate("Math.min(...[...document.querySelectorAll('img')].map(image => image.clientWidth))")
            assert smallest >= 80
            page.close()
