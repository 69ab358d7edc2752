"""Every official benchmark on a tiny set in its layout: what the reader yields, the score, and the files for the server."""

import contextlib
import io
import json

import numpy as np
import pytest
import torch
from faster_coco_eval import COCO, COCOeval_faster
from PIL import Image

from fourfold.evaluation.benchmarks import BENCHMARKS, OFFICIAL
from fourfold.evaluation.benchmarks.official import OfficialBenchmark, Run, score_official
from fourfold.evaluation.benchmarks.views import View
from fourfold.evaluation.config import BenchmarkConfig
from fourfold.evaluation.report.benchmarks import benchmark_page, text_table
from fourfold.evaluation.report.page import format_number
from fourfold.metrics.running import Bootstrap
from fourfold.modalities.class_table import ClassTable
from tests.fourfold.evaluation.benchmarks import tiny_sets
from tests.fourfold.evaluation.benchmarks.tiny_sets import WNIDS, Given, flat, halves
from tests.support.inception import random_weights


def score(name, path, model, encoder=None, table=None, folder=None, **settings):
    benchmark = BENCHMARKS.get(name)
    config = BenchmarkConfig(reader=name, path=path, batch_size=2, **settings)
    run = Run(model, config, Bootstrap(replicates=10), encoder, table, folder=folder)
    return score_official(benchmark, run)


def value(result, metric):
    return result["scores"][metric]["value"]


class Words:
    """A text encoder: each word of WORDS is one axis."""

    WORDS = ("name 4", "name 7", "name 5", "caption 0", "caption 2")

    def encode_text(self, texts):
        return np.array([[float(word in text) for word in self.WORDS] for text in texts]) + 1e-3

    def pool(self, features):
        return np.asarray(features).mean(axis=(1, 2))


def test_nyu_depth(tmp_path):
    tiny_sets.nyu(tmp_path)
    result = score("nyuv2_depth", tmp_path, Given(depth=lambda i: flat((i + 1) * 1.1)), folder=tmp_path / "out")
    assert result["samples"] == 2 and result["complete"] is False
    assert value(result, "abs_rel") == pytest.approx(0.1, abs=1e-6) and value(result, "delta1") == 1
    assert [entry["key"] for entry in result["failures"]] in (["0003", "0001"], ["0001", "0003"])
    assert "Eigen crop" in result["details"]["depth_protocol"]
    stored = np.asarray(Image.open(tmp_path / "out/0003.png"))
    assert stored.shape == (480, 640) and stored[0, 0] == 3300  # millimeters


def test_nyu_segmentation_maps_894_ids_to_40_classes(tmp_path):
    tiny_sets.nyu(tmp_path)
    # image 3: raw ids 2, 3 → classes 3, 12, stored from 0 as 2, 11; image 1: raw 0 (ignored), 1 → 40, stored as 39
    answers = {2: halves(2, 11), 0: halves(7, 39)}
    result = score("nyuv2_semseg", tmp_path, Given(semseg=lambda i: answers[i]))
    assert value(result, "miou") == 1 and result["details"]["iou"]["other prop"] == 1


def test_kitti(tmp_path):
    tiny_sets.kitti(tmp_path)
    result = score("kitti_depth", tmp_path, Given(depth=lambda i: flat(8.0 * (i + 1))), folder=tmp_path / "out")
    assert result["samples"] == 2 and value(result, "abs_rel") == pytest.approx(0.2) and result["view"] == "windows"
    assert len(list((tmp_path / "out").iterdir())) == 2
    scaled = score("kitti_depth", tmp_path, Given(depth=lambda i: flat(8.0 * (i + 1))), alignment="median", crop="none")
    assert value(scaled, "abs_rel") == pytest.approx(0, abs=1e-6)
    assert scaled["details"]["depth_protocol"] == "no crop, 0.001 to 80 m, median scaling"
    (tmp_path / "eigen_test_files.txt").write_text("what is this\n")
    with pytest.raises(ValueError, match=r"has the line 'what is this'. Expected: IMAGE.png"):
        score("kitti_depth", tmp_path, Given())


def test_diode(tmp_path):
    tiny_sets.diode(tmp_path)
    result = score("diode_depth", tmp_path, Given(depth=lambda i: flat(4.0 * (i + 1))))
    assert value(result, "rmse") == 0 and result["samples"] == 2
    down = np.broadcast_to(np.array([0, 255, 127.5], np.uint8).reshape(1, 1, 3), (16, 16, 3)).copy()
    down[..., 0] = 127
    angle = score("diode_normals", tmp_path, Given(normal=lambda i: down))
    assert value(angle, "mean") < 1 and value(angle, "within_11.25") == 1
    turned = score("diode_normals", tmp_path, Given(normal=lambda i: down), normal_signs=(1, -1, -1))
    assert value(turned, "mean") > 178


def test_ade_counts_classes_from_one_and_ignores_zero(tmp_path):
    tiny_sets.ade(tmp_path)
    result = score("ade20k", tmp_path, Given(semseg=lambda i: halves(i, 2)), folder=tmp_path / "out", view="squash")
    assert value(result, "miou") == 1 and result["samples"] == 2
    names = list(result["details"]["iou"])
    assert names[:5] == ["wall", "building", "sky", "screen 4", "screen 5"] and len(names) == 150
    stored = np.asarray(Image.open(tmp_path / "out/ADE_val_00000002.png"))
    assert stored.shape == (20, 32) and set(np.unique(stored)) == {2, 3}  # the ids of the official files


def test_cityscapes_uses_train_ids_and_writes_label_ids(tmp_path):
    tiny_sets.cityscapes(tmp_path)
    table = ClassTable(names=("Car", "floor", "person"))
    model = Given(semseg=lambda i: halves(1, 0))
    chosen = {"table": table, "view": "squash", "class_names": {"floor": "road"}}
    result = score("cityscapes", tmp_path, model, folder=tmp_path / "out", **chosen)
    assert value(result, "miou") == 1 and value(result, "pixel_accuracy") == 1
    assert "sky" in result["details"]["not_in_the_model"] and "road" not in result["details"]["not_in_the_model"]
    stored = np.asarray(Image.open(tmp_path / "out/munster_000000_000000_leftImg8bit.png"))
    assert set(np.unique(stored)) == {7, 26}
    with pytest.raises(ValueError, match="no name in common"):
        score("cityscapes", tmp_path, model, table=ClassTable(names=("sphere", "cube")))


def test_voc_segmentation_reads_palette_indices(tmp_path):
    tiny_sets.voc(tmp_path, 2012)
    result = score("voc2012_semseg", tmp_path, Given(semseg=lambda i: halves(1, 15)), view="squash")
    assert value(result, "miou") == 1 and result["details"]["iou"]["person"] == 1


@pytest.mark.parametrize("year", [2007, 2012])
def test_voc_boxes_count_from_one_and_difficult_ones_do_not_count(tmp_path, year):
    tiny_sets.voc(tmp_path, year)
    dog = {"box": [0, 0, 9 / 40, 9 / 20], "class_name": "dog", "score": 0.9}
    cat = {"box": [20 / 40, 0, 29 / 40, 9 / 20], "class_name": "cat", "score": 0.8}
    model = Given(det=lambda i: {"instances": [dog, cat, {"box": [0, 0, 1, 1], "class_name": "unicorn"}]})
    result = score(f"voc{year}_boxes", tmp_path, model, folder=tmp_path / "out")
    assert value(result, "ap50") == 1 and result["details"]["ap_of_classes"] == {"dog": 1}
    assert result["details"]["boxes_of_unknown_classes"] == {"unicorn": 2}
    line = (tmp_path / "out/comp4_det_test_dog.txt").read_text().splitlines()[0]
    assert line == "000002 0.900000 1.0 1.0 10.0 10.0"  # counted from 1


def test_coco_boxes_and_their_result_file_in_the_official_evaluator(tmp_path):
    tiny_sets.coco(tmp_path)
    found = {
        0: [{"box": [8 / 80, 4 / 40, 24 / 80, 16 / 40], "class_name": "dog", "score": 0.9}],
        1: [
            {"box": [41 / 80, 10 / 40, 60 / 80, 30 / 40], "class_name": "person", "score": 0.7},
            {"box": [0, 0, 20 / 80, 20 / 40], "class_name": "person", "score": 0.95},  # in the crowd
        ],
        2: [{"box": [0, 0, 0.5, 0.5], "class_name": "tooth brush", "score": 0.8}],
    }
    result = score("coco_boxes", tmp_path, Given(det=lambda i: {"instances": found[i]}), folder=tmp_path / "out")
    entries = json.loads((tmp_path / "out/detections.json").read_text())
    assert {entry["category_id"] for entry in entries} == {1, 18, 90} and {entry["image_id"] for entry in entries} == {7, 8, 9}
    with contextlib.redirect_stdout(io.StringIO()):
        coco = COCO(str(tmp_path / "annotations/instances_val2017.json"))
        evaluator = COCOeval_faster(coco, coco.loadRes(str(tmp_path / "out/detections.json")), "bbox")
        evaluator.evaluate()
        evaluator.accumulate()
        evaluator.summarize()
    assert [value(result, name) for name in ("ap", "ap50", "ap75", "ap_small")] == pytest.approx(evaluator.stats[:4], abs=1e-6)
    assert result["samples"] == 3 and set(result["details"]["ap_of_classes"]) == {"dog", "person"}


def test_coco_captions(tmp_path):
    tiny_sets.coco(tmp_path)
    model = Given(caption=lambda i: ("a brown dog", "Two people walking")[i])
    result = score("coco_captions", tmp_path, model, folder=tmp_path / "out")
    assert result["samples"] == 2 and value(result, "rouge_l") == 1
    assert json.loads((tmp_path / "out/captions.json").read_text())[0] == {"image_id": 7, "caption": "a brown dog"}


def test_coco_generation_reads_its_own_images_back(tmp_path):
    tiny_sets.coco(tmp_path)

    class Painter(Given):
        def predict(self, conditions, targets, *, preset="greedy", seed=0, seeds=None):
            if targets == ["caption"]:
                return super().predict(conditions, targets)
            self.given = conditions["caption"]
            shades = [24 * (1 + ("people" in text)) for text in self.given]
            return {"rgb": np.stack([np.full((16, 16, 3), shade, np.uint8) for shade in shades])}

    class Seeing(Words):
        def encode_image(self, rgb):
            return None, np.stack([[float(m), 1.0] for m in rgb.mean(axis=(1, 2, 3))])

        def encode_text(self, texts):
            return np.array([[24.0 * (1 + ("people" in text)), 1.0] for text in texts])

    model = Painter(caption=lambda i: ("a dog on grass", "two people sitting")[i])
    result = score("coco_generation", tmp_path, model, Seeing(), folder=tmp_path / "out")
    assert model.given == ["A dog on grass.", "Two people walking"]
    assert value(result, "clip_score") == pytest.approx(100, abs=1e-4)
    assert value(result, "frechet_encoder") == pytest.approx(0, abs=1e-6)
    assert value(result, "self_consistency") == pytest.approx((1 + 2 / 3) / 2, abs=1e-6)
    assert {path.name for path in (tmp_path / "out").iterdir()} == {"7.png", "8.png"}
    assert "fid" not in result["scores"]
    reason = "FID is left out: it needs the published Inception network. Set fid_weights to the file pt_inception-2015"
    assert reason in text_table(result) and reason in benchmark_page({"coco_generation": result})
    with pytest.raises(ValueError, match=r"none\.pth does not exist\. .* take pt_inception"):
        score("coco_generation", tmp_path, model, Seeing(), fid_weights=tmp_path / "none.pth")


def test_fid_of_coco_generation_equals_torch_fidelity(tmp_path):
    from torch_fidelity import calculate_metrics

    rng = np.random.default_rng(0)
    entries = [{"id": i, "file_name": f"COCO_val2014_{i:012d}.jpg"} for i in range(8)]
    for entry in entries:
        tiny_sets.save(tmp_path / "val2014" / entry["file_name"], rng.integers(0, 256, (40, 80, 3), dtype=np.uint8))
    captions = [{"image_id": i // 5, "id": i, "caption": f"noise {i}"} for i in range(40)]
    tiny_sets.write_json(tmp_path / "annotations/captions_val2014.json", {"images": entries, "annotations": captions})
    weights = tmp_path / "inception.pth"
    torch.save(random_weights(), weights)

    class Painter(Given):
        def predict(self, conditions, targets, *, preset="greedy", seed=0, seeds=None):
            if targets == ["caption"]:
                return {"caption": ["noise"] * len(conditions["rgb"])}
            return {"rgb": rng.integers(0, 180, (len(conditions["caption"]), 24, 24, 3), dtype=np.uint8)}

    class Seeing(Words):
        def encode_image(self, rgb):
            return None, rgb.mean(axis=(1, 2))[:, :2]

        def encode_text(self, texts):
            return np.ones((len(texts), 2))

    settings = {"split": "val2014", "max_samples": 6, "fid_weights": weights}
    result = score("coco_generation", tmp_path, Painter(), Seeing(), folder=tmp_path / "made", **settings)
    view = View("crop", Painter().image_side("rgb"))
    chosen = {int(path.stem) // 5 for path in (tmp_path / "made").iterdir()}  # images of the captions
    assert len(chosen) == 6
    for image in chosen:
        shown = view.main_input(np.asarray(Image.open(tmp_path / f"val2014/COCO_val2014_{image:012d}.jpg")))
        tiny_sets.save(tmp_path / f"real/{image}.png", shown)
    judge = calculate_metrics(
        input1=str(tmp_path / "made"), input2=str(tmp_path / "real"), fid=True, feature_extractor_weights_path=str(weights),
        cuda=False, cache=False, verbose=False, save_cpu_ram=True,
    )  # fmt: skip
    expected = judge["frechet_inception_distance"]
    assert value(result, "fid") == pytest.approx(expected, rel=1e-6)
    assert f"FID ↓ {format_number(expected)}\n" in text_table(result)
    details = result["details"]
    assert details["fid_network"].startswith("not the published file; SHA-256 ") and "left_out" not in result
    assert details["fid_images"].startswith(
        "6 generated of 24 × 24 pixels, 6 real ones of the same captions, as in 4M's script, resized to 16"
    )
    assert "Published numbers use 30,000" in details["fid_images"]


def test_coco_panoptic_as_classes(tmp_path):
    tiny_sets.coco(tmp_path)
    result = score(
        "coco_semseg", tmp_path, Given(semseg=lambda i: halves(1, 3))
    )  # dog is the second category, the rug the last
    assert value(result, "miou") == 1 and result["details"]["iou"]["rug-merged"] == 1


def test_karpathy(tmp_path):
    tiny_sets.karpathy(tmp_path)
    model = Given(caption=lambda i: f"caption {i} 0", clip=lambda i: Words().encode_text([f"caption {i}"])[None])
    assert value(score("karpathy_captions", tmp_path, model), "rouge_l") == 1
    result = score("karpathy_retrieval", tmp_path, model, Words())
    assert result["samples"] == 2 and value(result, "image_to_text_r1") == value(result, "text_to_image_r1") == 1
    with pytest.raises(ValueError, match="needs a text encoder"):
        score("karpathy_retrieval", tmp_path, model)


def test_vqa_completes_the_question(tmp_path):
    tiny_sets.vqa(tmp_path)
    completed = ("is it a dog? yes", "how many people ? two")
    model = Given(caption=lambda i: completed[i])
    result = score("vqav2", tmp_path, model, folder=tmp_path / "out")
    assert [condition for asked in model.asked for condition in asked["caption"]] == [
        "How many people? ___",
        "Is it a dog? ___",
    ]
    assert value(result, "accuracy_yes/no") == pytest.approx(0.9) and value(result, "accuracy_number") == 1
    answers = json.loads((tmp_path / "out/answers.json").read_text())
    assert answers == [{"question_id": 10, "answer": "two"}, {"question_id": 11, "answer": "yes"}]


def test_gqa(tmp_path):
    tiny_sets.gqa(tmp_path)
    result = score("gqa", tmp_path, Given(caption=lambda i: ("dog", "is it red? yes")[i]), folder=tmp_path / "out")
    assert value(result, "accuracy") == 0.5
    assert json.loads((tmp_path / "out/answers.json").read_text())[0] == {"questionId": "03", "prediction": "dog"}


@pytest.mark.parametrize("flat_val", [False, True])
def test_imagenet_translates_the_ids_of_the_development_kit(tmp_path, flat_val):
    tiny_sets.imagenet(tmp_path, flat_val)
    near = {0: 0, 1: 1, 2: 1}  # the third image looks like the second class
    model = Given(
        clip=lambda i: Words().encode_text([f"name {WNIDS[near[i]][-1]}"])[None],
        features=lambda i: np.eye(3)[i] + 0.1,
    )
    result = score("imagenet_zero_shot", tmp_path, model, Words(), folder=tmp_path / "out")
    assert value(result, "top_1") == pytest.approx(2 / 3, abs=1e-6) and value(result, "top_5") == 1
    assert (tmp_path / "out/classification.txt").read_text().splitlines()[2].split()[:2] == ["ILSVRC2012_val_00000003", "2"]
    neighbors = score("imagenet_knn", tmp_path, model)
    assert value(neighbors, "top_1") == 1 and neighbors["details"]["training_images"] == 21
    linear = score("imagenet_linear", tmp_path, model)
    assert value(linear, "top_1") == 1 and linear["details"]["training_images"] == 21


@pytest.mark.parametrize("benchmark", OFFICIAL, ids=lambda each: each.name)
def test_missing_data_are_one_error_with_the_site_and_the_layout(benchmark: OfficialBenchmark, tmp_path):
    with pytest.raises(ValueError) as error:
        score(benchmark.name, tmp_path / "nowhere", Given())
    text = str(error.value)
    assert (
        benchmark.title in text and benchmark.site in text and str(tmp_path / "nowhere") in text and "Expected in that" in text
    )
    with pytest.raises(ValueError, match=r"has no split 'dream'. Allowed: "):
        score(benchmark.name, tmp_path, Given(), split="dream")


def test_damaged_files_are_named(tmp_path):
    tiny_sets.ade(tmp_path)
    (tmp_path / "annotations/validation/ADE_val_00000002.png").write_bytes(b"no image")
    with pytest.raises(ValueError, match=r"ADE_val_00000002.png cannot be read as an image"):
        score("ade20k", tmp_path, Given(semseg=lambda i: halves(0, 2)))
    tiny_sets.save(tmp_path / "annotations/validation/ADE_val_00000002.png", np.zeros((3, 4), np.uint8))
    with pytest.raises(ValueError, match="has 3 x 4 pixels, its image 20 x 32"):
        score("ade20k", tmp_path, Given(semseg=lambda i: halves(0, 2)))
