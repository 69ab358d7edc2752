"""Fine-tuning on public benchmarks of depth and boxes: the loss, labels that follow their images, and the official score."""

import json
import shutil
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from fourfold.data.cursor import index_batches
from fourfold.evaluation.benchmarks import BENCHMARKS
from fourfold.evaluation.benchmarks.sets import objects
from fourfold.evaluation.benchmarks.sets.reading import read_json_file
from fourfold.evaluation.benchmarks.views import View
from fourfold.metrics.depth import DepthProtocol, depth_errors
from fourfold.metrics.detection import CocoScorer, Detections, TrueBoxes, VocScorer
from fourfold.metrics.running import Bootstrap
from fourfold.plugins import load_plugins
from fourfold.training.optimizers import OptimizerConfig
from fourfold.training.run_context import RunContext
from fourfold.transfer.benchmarks.augmentation import draw_jitter
from fourfold.transfer.benchmarks.parts import BoxLabels, Crop, DepthMaps
from fourfold.transfer.benchmarks.stream import FineTuned
from fourfold.transfer.benchmarks.streaming import random_box
from fourfold.transfer.config import TransferConfig
from fourfold.transfer.examples import Examples
from fourfold.transfer.finetuning import finetune
from fourfold.transfer.head_sizes import BoxHeadConfig, DenseHeadConfig, HeadsConfig
from fourfold.transfer.heads.dense import DepthHead
from fourfold.transfer.tasks import TRANSFER_TASKS, TransferData, select_tasks
from tests.fourfold.evaluation.benchmarks import tiny_sets
from tests.fourfold.transfer import benchmark_sets
from tests.fourfold.transfer.benchmark_sets import DEPTHS

pytestmark = pytest.mark.numeric
SMALL = HeadsConfig(dense=DenseHeadConfig(width=16, depth=0))


@pytest.fixture(autouse=True)
def plugin():
    load_plugins(["fourfold.transfer.benchmarks"])  # tests/conftest.py forgets it


def settings(name, root, steps=2, **others):
    return TransferConfig(
        tasks=(name,), num_labels=(1000,), num_seeds=1, steps=steps, batch_size=4, precision="fp32",
        arms={"baseline": {"start": "baseline"}}, lr_multipliers={"baseline": (3.0,)},
        heads={"dense": {"width": 16, "depth": 1}}, benchmarks={name: {"path": root, "held_out": 0, **others}},
    )  # fmt: skip


def opened(name, root, **others):
    """Return a task with its data, and the examples that may be learned."""
    config = settings(name, root, **others)
    tasks, _ = select_tasks([name], TransferData(None, None, benchmarks=config.benchmarks))
    return tasks[name], tasks[name].stream.pool(tasks[name], 32, 0)


def constant(module, value):
    """Make a head predict one standardized value everywhere."""
    torch.nn.init.zeros_(module.head.predict.weight)
    torch.nn.init.constant_(module.head.predict.bias, value)
    return module


@pytest.mark.parametrize("scale", ["linear", "log"])
def test_unknown_pixels_do_not_count_in_the_loss(scale):
    depth = np.array([[2.0, 4.0, 8.0, 0.0], [np.nan, 10.0, 11.0, np.inf]], np.float32)  # three are inside the limits
    head = DepthHead(1e-3, 10.0, scale)
    module = constant(head.build(4, SMALL, Examples(np.zeros((1, 2, 4, 3)), [], [], {}, [depth])), 0.5)
    learned = np.array([2.0, 4.0, 8.0]) if scale == "linear" else np.log([2.0, 4.0, 8.0])
    error = np.abs(0.5 - (learned - learned.mean()) / learned.std())  # the reverse Huber loss by hand
    limit = 0.2 * error.max()
    expected = np.where(error <= limit, error, (error**2 + limit**2) / (2 * limit)).mean()
    maps = [torch.zeros(1, 4, 1, 2)]
    loss = module.loss(maps, [depth])
    assert loss.item() == pytest.approx(expected, rel=1e-5)
    loss.backward()
    assert torch.isfinite(module.head.predict.bias.grad).all()
    assert module.loss(maps, [np.zeros((2, 4), np.float32)]).item() == 0
    value = 0.5 * learned.std() + learned.mean()
    found = module.predict(maps, (2, 4))[0]
    assert found == pytest.approx(np.full((2, 4), value if scale == "linear" else np.exp(value)), rel=1e-5)
    for extreme, limit in ((-1e4, 1e-3), (1e4, 10.0)):
        assert constant(module, extreme).predict(maps, (2, 4))[0] == pytest.approx(np.full((2, 4), limit))


@given(
    size=st.tuples(st.integers(1, 90), st.integers(1, 90)),
    side=st.integers(1, 48),
    view=st.sampled_from(["squash", "crop", "windows"]),
    jitter=st.booleans(),
    seed=st.integers(0, 2**32 - 1),
)
def test_depth_is_that_of_the_pixel_that_is_seen_divided_by_the_zoom(size, side, view, jitter, seed):
    """Each pixel of the label comes from the pixel of the image that is shown there, by the affine map of the part."""
    rng = np.random.default_rng(seed)
    part = draw_jitter(size, side, (0.3, 2.0), rng) if jitter else Crop(random_box(*size, (0.3, 1.0), rng), side)
    rows, columns = np.mgrid[: size[0], : size[1]]
    truth = 1.0 + rows * size[1] + columns
    scored = View(view, side).boxes(*size)[0]
    label = DepthMaps(1e-3, 1e9).of_part(truth, part, size, scored)
    a, b, c, d = part.affine(size)
    zoom = np.sqrt((a / (side / scored[2])) * (b / (side / scored[3])))  # sizes of things, compared with what is scored
    assert label.shape == (side, side) and label.dtype == np.float32
    y, x = ((np.nonzero(label)[0] + 0.5 - c) / a, (np.nonzero(label)[1] + 0.5 - d) / b)  # in the image
    number = label[label > 0] * zoom - 1
    assert number == pytest.approx(np.round(number), abs=0.01)
    number = np.round(number).astype(int)
    assert np.abs(number // size[1] + 0.5 - y).max(initial=0) <= 0.5 + 1e-6
    assert np.abs(number % size[1] + 0.5 - x).max(initial=0) <= 0.5 + 1e-6
    if not jitter:
        assert (label > 0).all()


def test_what_scoring_sees_keeps_its_depth_and_far_readings_do_not_become_near_ones():
    truth = np.array([[9.0, 10.0, 12.0, np.inf], [np.nan, 0.0, -1.0, 5.0]])
    depth = DepthMaps(1e-3, 10.0)
    for box in View("windows", 2).boxes(2, 4):
        top, left, height, width = box
        expected = np.where((truth > 0) & (truth < 10), truth, 0)[top : top + height, left : left + width]
        assert np.array_equal(depth.of_part(truth, Crop(box, 2), (2, 4), box), expected.astype(np.float32))
    near = depth.of_part(truth, Crop((0, 0, 1, 1), 2), (2, 4), (0, 0, 2, 2))  # twice as large as in scoring
    assert np.array_equal(near, np.full((2, 2), 4.5, np.float32))
    gone = depth.of_part(truth, Crop((0, 2, 1, 1), 2), (2, 4), (0, 0, 2, 2))
    assert not gone.any()


@pytest.mark.parametrize(
    "augmentation",
    [{"random_crop": (0.3, 0.8)}, {"scale_jitter": (1.0, 1.0)}, {"view": "windows"}],
    ids=["crop", "jitter", "windows"],
)
def test_depth_follows_images_through_crops_and_mirrors(tmp_path, augmentation):
    _, pool = opened("nyuv2_depth", benchmark_sets.nyu(tmp_path, train=6, test=1), mirror=True, **augmentation)
    batch, _ = next(pool.resized(48).batches(index_batches(len(pool), 6, 0, "order"), 0))
    depth, is_blue = np.stack(batch.labels), batch.rgb[..., 2] > batch.rgb[..., 0].astype(int) + 20
    known = depth > 0
    assert depth.shape == (6, 48, 48) and 0.3 < known.mean() < 1
    assert not (batch.rgb == 128).all(-1).any()  # scoring squashes these images: jitter of factor 1 fills the square
    for one, blue, counted in zip(depth, is_blue, known, strict=True):
        near, far = (np.unique(one[counted & (blue == flag)].round(3), return_counts=True) for flag in (False, True))
        best = [float(values[counts.argmax()]) for values, counts in (near, far) if len(values)]
        if len(best) == 2:  # all but the pixels at the edge
            assert best[1] / best[0] == pytest.approx(DEPTHS[1] / DEPTHS[0], rel=1e-2)
            assert ((one > (best[0] + best[1]) / 2) == blue)[counted].mean() > 0.95
    assert len({bool(blue[24, 0]) for blue in is_blue}) == 2  # some are mirrored


def test_nyu_is_learned_and_scored_by_the_official_measure(pretrained, world, tmp_path):
    root = benchmark_sets.nyu(tmp_path / "set", train=6, test=2)
    config = settings("nyuv2_depth", root, steps=30)
    found = finetune(pretrained, replace(world, benchmarks=config.benchmarks), config, RunContext(0, tmp_path / "runs"))
    ((name, official),) = found["benchmarks"].items()
    assert official["samples"] == 2 and official["split"] == "test" and "Eigen crop" in official["protocol"]
    # The predictions of the run, in millimeters, scored by themselves
    errors, constant_errors = [], []
    for example in BENCHMARKS.get("nyuv2_depth").read(root, "test"):
        stored = np.asarray(Image.open(tmp_path / "runs" / name / f"predictions/{example.key}.png")) / 1000
        protocol = DepthProtocol("eigen_nyu", max_depth=10.0)
        errors.append(depth_errors(stored, example.truth, protocol))
        constant_errors.append(depth_errors(np.full(stored.shape, 4.0), example.truth, protocol)["abs_rel"])
    for metric in ("abs_rel", "rmse", "delta1"):
        expected = np.mean([each[metric] for each in errors])
        assert official["scores"][metric]["value"] == pytest.approx(expected, abs=2e-3)  # of rounded millimeters
        assert found["transfer"]["nyuv2_depth_6"][metric]["baseline"]["mean"] == official["scores"][metric]["value"]
    assert official["scores"]["abs_rel"]["value"] < 0.5 * np.mean(constant_errors)  # it has learned the colors


def test_kitti_learns_the_logarithm_of_frames_with_truth(pretrained, world, tmp_path, caplog):
    root = benchmark_sets.kitti(tmp_path / "set")
    caplog.set_level("INFO", "fourfold.evaluation.benchmarks.sets.depth")
    task, pool = opened("kitti_depth", root, depth_scale="log")
    assert "5 of 6 frames have improved ground truth" in caplog.text
    assert task.head == DepthHead(1e-3, 80.0, "log") and task.main_metric.name == "abs_rel" and len(pool) == 5
    module = task.head.build(4, SMALL, pool)
    assert np.log(DEPTHS[0]) < module.mean < np.log(DEPTHS[1])
    known = np.stack(pool.labels) > 0
    assert 0.2 < known.mean() < 0.5  # sparse as the files: a third
    config = settings("kitti_depth", root, depth_scale="log", mirror=True)
    found = finetune(pretrained, replace(world, benchmarks=config.benchmarks), config, RunContext(0, tmp_path / "runs"))
    (official,) = found["benchmarks"].values()
    assert official["view"] == "windows" and official["samples"] == 2 and 0 < official["scores"]["abs_rel"]["value"] < 10


def test_other_maps_of_these_data_can_be_learned(tmp_path):
    tiny_sets.nyu(tmp_path / "nyu")
    with pytest.raises(ValueError, match=r"0 examples are held out of the 1 of 'train'; at least 2 must be left"):
        opened("nyuv2_semseg", tmp_path / "nyu")
    with pytest.raises(ValueError, match=r"rand_augment moves an image and not its map"):
        opened("nyuv2_depth", tmp_path / "nyu", rand_augment={})
    with pytest.raises(ValueError, match=r"KITTI depth, Eigen split: no eigen_train_files.txt in"):
        opened("kitti_depth", tmp_path)
    tiny_sets.diode(tmp_path / "diode")
    shutil.copytree(tmp_path / "diode/val", tmp_path / "diode/train")
    task, pool = opened("diode_depth", tmp_path / "diode")
    assert task.head == DepthHead(1e-3, 300.0) and len(pool) == 2
    assert [sorted(np.unique(label)) for label in pool.labels] == [[0, 4], [0, 8]]  # outside of the mask, and on it


@given(
    size=st.tuples(st.integers(1, 60), st.integers(1, 60)),
    side=st.integers(4, 48),
    jitter=st.booleans(),
    seed=st.integers(0, 2**32 - 1),
)
def test_boxes_are_those_of_the_painted_pixels(size, side, jitter, seed):
    """A box of painted pixels, and the painted pixels of its map, are at the same place of the part, also mirrored."""
    rng = np.random.default_rng(seed)
    part = draw_jitter(size, side, (0.3, 2.0), rng) if jitter else Crop(random_box(*size, (0.3, 1.0), rng), side)
    edges = [np.sort(rng.integers(0, length + 1, (2, 2)), axis=1) for length in size]  # of two boxes: y, then x
    box = np.array([[edges[1][i, 0], edges[0][i, 0], edges[1][i, 1], edges[0][i, 1]] for i in range(2)], float)
    truth = TrueBoxes(box, np.array([1, 0]), np.ones(2), np.array([False, True]))
    labels = BoxLabels(("cat", "dog"))
    found = labels.of_part(truth, part, size, (0, 0, *size))["instances"]
    assert len(found) <= 1  # the other is a crowd
    painted = np.zeros(size, np.uint8)
    painted[edges[0][0, 0] : edges[0][0, 1], edges[1][0, 0] : edges[1][0, 1]] = 1
    rows, columns = np.nonzero(part.map(painted, 0))
    if not found:
        assert len(set(rows)) <= 1 or len(set(columns)) <= 1  # less than a pixel is seen of its height or width
        return
    (one,) = found
    x0, y0, x1, y1 = np.array(one["box"]) * side
    assert one["class_name"] == "dog" and 0 <= x0 <= x1 - 0.999 and x1 <= side and 0 <= y0 <= y1 - 0.999 and y1 <= side
    # The painted pixels are those whose center is in the box
    expected = (columns.min(), rows.min(), columns.max() + 1, rows.max() + 1)
    assert (x0, y0, x1, y1) == pytest.approx(expected, abs=0.5 + 1e-6)
    (mirrored,) = labels.mirrored({"instances": found})["instances"]
    assert np.array(mirrored["box"]) * side == pytest.approx([side - x1, y0, side - x0, y1])


def test_boxes_of_coco_and_voc_are_learned_and_scored_by_the_official_measure(pretrained, world, tmp_path, monkeypatch):
    tiny_sets.coco(tmp_path / "coco")
    shutil.copytree(tmp_path / "coco/val2017", tmp_path / "coco/train2017")
    shutil.copy(*(tmp_path / f"coco/annotations/instances_{split}2017.json" for split in ("val", "train")))
    tiny_sets.voc(tmp_path / "voc", 2012)
    shutil.copy(*(tmp_path / f"voc/VOCdevkit/VOC2012/ImageSets/Main/{split}.txt" for split in ("val", "train")))
    heads = HeadsConfig(
        boxes=BoxHeadConfig(width=32, hidden=64, pool_side=5, anchor_cells=4, proposals=50, sampled_boxes=32, min_score=0)
    )
    optimizer = OptimizerConfig(learning_rate=6e-3, muon_learning_rate=0.06)
    predicted, predict = [], FineTuned.predict

    def recorded(self, conditions, targets, **others):
        found = predict(self, conditions, targets, **others)
        predicted.extend(found["det"])
        return found

    monkeypatch.setattr(FineTuned, "predict", recorded)
    coco, voc = (scorer(Bootstrap(replicates=0), *others) for scorer, *others in ((CocoScorer,), (VocScorer, False)))
    sets = (("coco_boxes", "coco", 4, coco, [1, 1, 0]), ("voc2012_boxes", "voc", 90, voc, [1, 1]))
    for name, root, steps, scorer, boxes in sets:
        config = settings(name, tmp_path / root, steps, scale_jitter=(0.9, 1.1), mirror=root == "coco")
        config = config.model_copy(update={"heads": heads, "optimizer": optimizer})
        task, pool = opened(name, tmp_path / root)
        assert [len(label["instances"]) for label in pool.labels] == boxes  # without crowds and difficult objects
        predicted.clear()
        data = replace(world, benchmarks=config.benchmarks)
        found = finetune(pretrained, data, config, RunContext(0, tmp_path / f"runs_{root}"))
        (official,) = found["benchmarks"].values()
        examples = list(BENCHMARKS.get(name).read(tmp_path / root, official["split"]))
        for example, answer in zip(examples, predicted, strict=True):  # the same predictions, scored by themselves
            height, width, _ = example.rgb.shape
            rows = [(*one["box"], task.head.classes.index(one["class_name"]), one["score"]) for one in answer["instances"]]
            table = np.array(rows, float).reshape(-1, 6) * (width, height, width, height, 1, 1)
            scorer.add(Detections(table[:, :4], table[:, 4].astype(int), table[:, 5]), example.truth)
        scores = {metric: score.value for metric, score in scorer.scores().items() if np.isfinite(score.value)}
        assert {metric: each["value"] for metric, each in official["scores"].items()} == pytest.approx(scores, abs=1e-6)
    assert official["scores"]["ap50"]["value"] > 0.3  # it has learned the boxes of VOC


def test_annotations_of_coco_are_read_once_for_all_learning_rates(pretrained, world, tmp_path, monkeypatch):
    tiny_sets.coco(tmp_path / "coco")
    shutil.copytree(tmp_path / "coco/val2017", tmp_path / "coco/train2017")
    shutil.copy(*(tmp_path / f"coco/annotations/instances_{split}2017.json" for split in ("val", "train")))

    def counted(path):
        with (tmp_path / "reads").open("a") as file:  # also those of other processes
            file.write(f"{path.stem}\n")
        return read_json_file(path)

    monkeypatch.setattr(objects, "read_json_file", counted)
    boxes = BoxHeadConfig(width=16, hidden=16, pool_side=3, anchor_cells=4, proposals=10, sampled_boxes=8, min_score=0)
    config = settings("coco_boxes", tmp_path / "coco", held_out=1).model_copy(
        update={"heads": HeadsConfig(boxes=boxes), "lr_multipliers": {"baseline": (1.0, 2.0, 3.0)}}
    )
    TRANSFER_TASKS.get("coco_boxes").check(config.benchmarks["coco_boxes"])  # before a run starts
    assert not (tmp_path / "reads").exists()
    data = replace(world, benchmarks=config.benchmarks)
    found = finetune(pretrained, data, config, RunContext(0, tmp_path / "runs"))
    assert len(found["benchmarks"]) == 1 and len(list((tmp_path / "runs").glob("*transfer_val.json"))) == 3
    assert sorted((tmp_path / "reads").read_text().split()) == ["instances_train2017", "instances_val2017"]
    opened("coco_boxes", tmp_path / "coco")[0].stream.digest()  # nothing stays in the process: another run reads them again
    assert len((tmp_path / "reads").read_text().split()) == 4


def test_classes_of_coco_must_be_those_that_are_learned(tmp_path):
    tiny_sets.coco(tmp_path)
    shutil.copytree(tmp_path / "val2017", tmp_path / "train2017")
    content = json.loads((tmp_path / "annotations/instances_val2017.json").read_text())
    content["categories"].append({"id": 95, "name": "kite"})
    tiny_sets.write_json(tmp_path / "annotations/instances_train2017.json", content)
    task, _ = opened("coco_boxes", tmp_path)
    assert task.head.classes == ("person", "dog", "toothbrush", "kite")
    with pytest.raises(ValueError, match=r"'train2017' has 4 classes and 'val2017' 3; .* must be equal\. Use the official"):
        task.stream.digest()


def test_boxes_need_whole_images_and_no_rand_augment(tmp_path):
    tiny_sets.voc(tmp_path, 2007)
    main = tmp_path / "VOCdevkit/VOC2007/ImageSets/Main"
    shutil.copy(main / "test.txt", main / "trainval.txt")
    with pytest.raises(
        ValueError, match=r"rand_augment moves an image and not its boxes\. Remove .*voc2007_boxes.rand_augment"
    ):
        opened("voc2007_boxes", tmp_path, rand_augment={})
    with pytest.raises(ValueError, match=r"view is 'crop', and the official boxes .* Allowed: squash\. Change .*boxes.view"):
        opened("voc2007_boxes", tmp_path, view="crop")
