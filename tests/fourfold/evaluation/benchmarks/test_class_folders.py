"""Zero-shot classification of class folders, compared with torchmetrics."""

import numpy as np
import pytest
import torch

from fourfold.evaluation.benchmarks import evaluate_benchmarks
from fourfold.evaluation.benchmarks.class_folders import class_frequencies, class_names, read_class_folders
from fourfold.evaluation.benchmarks.protocol import BenchmarkSplit, read_image
from fourfold.evaluation.config import EvaluationConfig
from fourfold.evaluation.report.page import ReportData, write_report
from fourfold.images import png

CLASSES = ("apple", "bear", "clock", "daisy", "eagle", "fire_truck", "glove")
SIDE, IMAGES_PER_CLASS = 8, 5


def write_images(root, counts: dict[str, int]) -> None:
    """Write images in the official layout; the color of an image encodes its class and its index in it."""
    for class_id, (name, count) in enumerate(counts.items()):
        (root / name).mkdir(parents=True)
        for index in range(count):
            image = np.full((10, 14, 3), (20 * class_id, 10 * index, 255), np.uint8)
            (root / name / f"{index}.png").write_bytes(png(image))


class Encoder:
    """Encodes a text as the class that it names; an image by fixed random numbers for each of its colors."""

    def encode_text(self, texts):
        names = [name.replace("_", " ") for name in CLASSES]
        return np.array([[float(f" {name}." in text) for name in names] for text in texts]) + 1e-3

    def encode_image(self, rgb):
        rows = [np.random.default_rng(int(r) * 256 + int(g)).random(len(CLASSES)) for r, g in rgb[:, 0, 0, :2]]
        features = np.array(rows) + 0.4 * np.eye(len(CLASSES))[rgb[:, 0, 0, 0] // 20]
        return np.broadcast_to(features[:, None, None], (len(rgb), 2, 2, len(CLASSES))), features

    def pool(self, features):
        return features.mean((1, 2))


class Model:
    """Predicts the features that the encoder computes."""

    def image_side(self, name):
        return SIDE

    def predict(self, conditions, targets, *, preset=None, seed=0):
        assert targets == ["clip"] and conditions["rgb"].shape[1:] == (SIDE, SIDE, 3)
        return {"clip": Encoder().encode_image(conditions["rgb"])[0]}


def test_accuracies_equal_those_of_torchmetrics(tmp_path):
    from torchmetrics.functional.classification import multiclass_accuracy

    write_images(tmp_path / "val", dict.fromkeys(CLASSES, IMAGES_PER_CLASS))
    write_images(tmp_path / "train", {name: 1 + (name == "clock") for name in CLASSES})
    config = EvaluationConfig(replicates=50, benchmarks={"mine": {"reader": "class_folders", "path": tmp_path}})
    result = evaluate_benchmarks(Model(), Encoder(), config, seed=0)["mine"]
    samples = read_class_folders(BenchmarkSplit(tmp_path, "val", SIDE, 1000))
    pooled = torch.tensor(Encoder().encode_image(samples.rgb)[1])
    cosines = torch.nn.functional.normalize(pooled, dim=1)
    target = torch.tensor(samples.truth["class_id"])
    for k in (1, 5):
        expected = multiclass_accuracy(cosines, target, num_classes=len(CLASSES), top_k=k, average="micro")
        entry = result["table"]["rgb->clip"][f"top_{k}"]
        assert entry["value"] == entry["teacher"] == pytest.approx(float(expected), abs=1e-6)
        assert entry["shuffled"] < entry["value"] and 0 < entry["ci95"][0] < entry["ci95"][1] <= 1
        assert entry["trivial"] == pytest.approx(k / len(CLASSES), abs=1e-6)  # the classes of val are equally frequent
    assert result["samples"] == len(CLASSES) * IMAGES_PER_CLASS
    assert "top-5 accuracy" in write_report(ReportData({"benchmarks": {"mine": result}}))


def test_without_a_text_encoder_the_task_is_skipped_with_a_reason(tmp_path):
    write_images(tmp_path / "val", {"a": 1, "b": 1})
    config = EvaluationConfig(benchmarks={"mine": {"reader": "class_folders", "path": tmp_path}})
    result = evaluate_benchmarks(Model(), None, config, seed=0)["mine"]
    assert result["table"] == {} and result["skipped"] == {"rgb->clip/classes": "it requires a text encoder"}


def test_a_limit_keeps_the_classes_balanced(tmp_path):
    write_images(tmp_path / "val", {"a": 5, "b": 2, "c": 4})
    samples = read_class_folders(BenchmarkSplit(tmp_path, "val", SIDE, max_samples=7))
    assert np.bincount(samples.truth["class_id"]).tolist() == [3, 2, 2]
    assert samples.keys[0] == "a/0.png" and samples.choices == ("a", "b", "c")
    assert class_frequencies(samples).argmax() == 0


def test_class_names_come_from_the_list_if_there_is_one(tmp_path):
    write_images(tmp_path / "val", {"n01": 1, "n02_b": 1})
    assert class_names(tmp_path, "val") == {"n01": "n01", "n02_b": "n02 b"}
    (tmp_path / "classes.txt").write_text("n01 tench, Tinca tinca\nn02_b goldfish\n")
    assert class_names(tmp_path, "val") == {"n01": "tench", "n02_b": "goldfish"}
    (tmp_path / "classes.txt").write_text("n01 tench\n")
    with pytest.raises(ValueError, match="does not name 'n02_b'"):
        class_names(tmp_path, "val")


def test_another_layout_is_an_error_with_the_expected_one(tmp_path):
    with pytest.raises(ValueError, match="0 class folders; at least 2 are needed"):
        class_names(tmp_path, "val")
    (tmp_path / "a.png").write_text("no image")
    with pytest.raises(ValueError, match="cannot be read as an image"):
        read_image(tmp_path / "a.png", SIDE)


def test_images_are_cropped_at_the_center(tmp_path):
    image = np.zeros((8, 16, 3), np.uint8)
    image[:, 4:12] = 200
    (tmp_path / "wide.png").write_bytes(png(image))
    assert (read_image(tmp_path / "wide.png", 8) == 200).all()
