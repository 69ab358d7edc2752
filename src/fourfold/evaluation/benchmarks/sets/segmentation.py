"""ADE20K, Cityscapes, PASCAL VOC 2012, NYUv2 and COCO panoptic: semantic segmentation.

ADE20K is the scene parsing set (Zhou et al. 2017, arXiv 1608.05442); Cityscapes: Cordts et al. 2016, arXiv 1604.01685. The 133
classes of COCO come from its panoptic annotations (Kirillov et al. 2019, arXiv 1801.00868).
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import scipy.io

from fourfold.evaluation.benchmarks.dense_measures import SegmentationMeasure
from fourfold.evaluation.benchmarks.official import Example, OfficialBenchmark, Published, Run, StoredExamples
from fourfold.evaluation.benchmarks.sets.depth import NYU_FILE, NYU_SPLITS, read_nyu
from fourfold.evaluation.benchmarks.sets.reading import read_ids, read_json_file, read_lines, read_rgb, same_size
from fourfold.labelers.cityscapes.classes import CITYSCAPES_CLASSES, train_ids
from fourfold.metrics.metric import Metric
from fourfold.metrics.segmentation import IGNORED
from fourfold.modalities.class_table import ClassTable

METRICS = (
    Metric("miou", "mIoU", "mean over classes of the IoU of the split"),
    Metric("pixel_accuracy", "pixel accuracy", "share of labeled pixels"),
    Metric("mean_accuracy", "mean accuracy", "mean over classes of the share of their pixels"),
)
VOC_CLASSES = (
    "background", "aeroplane", "bicycle", "bird", "boat", "bottle", "bus", "car", "cat", "chair", "cow", "diningtable", "dog",
    "horse", "motorbike", "person", "pottedplant", "sheep", "sofa", "train", "tvmonitor",
)  # fmt: skip
NYU40_CLASSES = (
    "wall", "floor", "cabinet", "bed", "chair", "sofa", "table", "door", "window", "bookshelf", "picture", "counter", "blinds",
    "desk", "shelves", "curtain", "dresser", "pillow", "mirror", "floor mat", "clothes", "ceiling", "books", "refrigerator",
    "television", "paper", "towel", "shower curtain", "box", "whiteboard", "person", "night stand", "toilet", "sink", "lamp",
    "bathtub", "bag", "other structure", "other furniture", "other prop",
)  # fmt: skip
ADE_SPLITS = {"training": "train", "validation": "val"}
NYU_MAP = "classMapping40.mat"


def read_ade(folder: Path, split: str) -> StoredExamples:
    """Return ADE20K; class 1 becomes 0, and 0 (other) is ignored."""

    def load(path: Path) -> Example:
        rgb, labels = read_rgb(path), folder / "annotations" / split / f"{path.stem}.png"
        return Example(path.stem, rgb, same_size(without_zero(read_ids(labels)), rgb, labels))

    return StoredExamples(sorted((folder / "images" / split).glob("*.jpg")), load)


def without_zero(ids: np.ndarray) -> np.ndarray:
    """Return class ids counted from 0 where 0 meant no label: 0 and 255 become ignored, others one less, uint8."""
    return np.where((ids == 0) | (ids == IGNORED), IGNORED, ids - 1).astype(np.uint8)


def ade_names(folder: Path) -> tuple[str, ...]:
    """Return the first name of each class from `objectInfo150.txt`, which ADE20K ships; equal ones get their number."""
    rows = [line.split("\t") for line in read_lines(folder / "objectInfo150.txt")[1:]]
    names = [row[-1].split(",")[0].split(";")[0].strip() for row in rows]
    return tuple(name if names.count(name) == 1 else f"{name} {index + 1}" for index, name in enumerate(names))


def read_cityscapes(folder: Path, split: str) -> StoredExamples:
    """Return Cityscapes with train ids; the labels of `test` are not public."""
    to_train = train_ids()

    def load(path: Path) -> Example:
        rgb, stem = read_rgb(path), path.name.removesuffix("_leftImg8bit.png")
        labels = folder / "gtFine" / split / path.parent.name / f"{stem}_gtFine_labelIds.png"
        truth = None if split == "test" else same_size(to_train[read_ids(labels)], rgb, labels)
        return Example(f"{path.parent.name}/{stem}_leftImg8bit", rgb, truth)

    return StoredExamples(sorted((folder / "leftImg8bit" / split).glob("*/*_leftImg8bit.png")), load)


def read_voc_segmentation(folder: Path, split: str) -> StoredExamples:
    """Return PASCAL VOC 2012; masks are palette images, whose indices are the classes."""
    root = folder / "VOCdevkit/VOC2012"

    def load(name: str) -> Example:
        rgb, labels = read_rgb(root / f"JPEGImages/{name}.jpg"), root / f"SegmentationClass/{name}.png"
        return Example(name, rgb, same_size(read_ids(labels), rgb, labels))

    return StoredExamples(read_lines(root / f"ImageSets/Segmentation/{split}.txt"), load)


def read_nyu_segmentation(folder: Path, split: str) -> StoredExamples:
    """Return NYUv2 with its 40 classes."""
    try:
        to_40 = np.append(0, scipy.io.loadmat(folder / NYU_MAP)["mapClass"].ravel()).astype(np.int64)
    except (OSError, ValueError, KeyError) as error:
        raise ValueError(f"{folder / NYU_MAP} has no mapClass ({error}). Download it again.") from error
    return read_nyu(folder, split, "labels", lambda ids_HW: without_zero(to_40[ids_HW.astype(np.int64)]))


def coco_panoptic(folder: Path, split: str) -> dict[str, Any]:
    """Return the content of COCO's panoptic annotations."""
    found: dict[str, Any] = read_json_file(folder / f"annotations/panoptic_{split}.json")
    return found


def panoptic_categories(content: dict[str, Any]) -> dict[int, str]:
    """Return the names of the 133 categories by id, sorted: things 0 to 79, then stuff."""
    return {each["id"]: each["name"] for each in sorted(content["categories"], key=lambda each: each["id"])}


def read_coco_panoptic(folder: Path, split: str) -> Iterator[Example]:
    """Yield COCO with 133 classes: each segment of the panoptic PNG takes the class of its category; void is ignored."""
    content = coco_panoptic(folder, split)
    index_of = {category: index for index, category in enumerate(panoptic_categories(content))}
    for annotation in sorted(content["annotations"], key=lambda each: each["image_id"]):
        path = folder / f"annotations/panoptic_{split}" / annotation["file_name"]
        colors = read_rgb(path).astype(np.int64)
        segment_HW = colors @ (1, 256, 65536)
        truth = np.full(segment_HW.shape, IGNORED, np.uint8)
        for segment in annotation["segments_info"]:
            truth[segment_HW == segment["id"]] = index_of[segment["category_id"]]
        rgb = read_rgb(folder / split / Path(annotation["file_name"]).with_suffix(".jpg"))
        yield Example(f"{annotation['image_id']:012d}", rgb, same_size(truth, rgb, path))


def _table(names: tuple[str, ...]) -> ClassTable:
    return ClassTable(names=names, ignored=(IGNORED,))


def _ade_measure(run: Run) -> SegmentationMeasure:
    names = ade_names(run.config.path)
    return SegmentationMeasure(run, _table(names), np.arange(1, len(names) + 1, dtype=np.uint8))


def _coco_measure(run: Run) -> SegmentationMeasure:
    content = coco_panoptic(run.config.path, str(run.config.split))
    return SegmentationMeasure(run, _table(tuple(panoptic_categories(content).values())))


SEGMENTATION_BENCHMARKS = (
    OfficialBenchmark(
        name="ade20k",
        title="ADE20K scene parsing",
        site="the MIT Scene Parsing Benchmark (sceneparsing.csail.mit.edu)",
        layout=("objectInfo150.txt", "images/{split}/*.jpg", "annotations/{split}/*.png"),
        read=read_ade,
        measure=_ade_measure,
        metrics=METRICS,
        protocol="mIoU of 150 classes at the original size, 0 ignored",
        split="validation",
        splits=("training", "validation"),
        train_split="training",
        view="windows",
        sizes={"training": 20210, "validation": 2000},
        published=(
            Published("4M-21 B, fine-tuned", "miou", 0.501, "arXiv 2406.09406, table 2"),
            Published("4M-21 XL, fine-tuned", "miou", 0.560, "arXiv 2406.09406, table 2"),
            Published("DINOv2-g, fine-tuned", "miou", 0.587, "arXiv 2406.09406, table 2"),
            Published("SegFormer-B0", "miou", 0.374, "MMSegmentation"),
        ),
    ),
    OfficialBenchmark(
        name="cityscapes",
        title="Cityscapes",
        site="the Cityscapes Dataset page (cityscapes-dataset.com)",
        layout=("leftImg8bit/{split}/*/*_leftImg8bit.png", "gtFine/{split}/*/*_gtFine_labelIds.png"),
        read=read_cityscapes,
        measure=lambda run: SegmentationMeasure(
            run, _table(tuple(CITYSCAPES_CLASSES.values())), np.array(list(CITYSCAPES_CLASSES), np.uint8)
        ),
        metrics=METRICS,
        protocol="mIoU of 19 classes at 1024 x 2048, others ignored",
        splits=("train", "val", "test"),
        train_split="train",
        view="windows",
        sizes={"train": 2975, "val": 500, "test": 1525},
        published=(
            Published("U-Net S5-D16 FCN", "miou", 0.691, "MMSegmentation"),
            Published("DeepLabV3+ R50", "miou", 0.801, "MMSegmentation"),
            Published("SegFormer-B5", "miou", 0.823, "MMSegmentation"),
        ),
    ),
    OfficialBenchmark(
        name="voc2012_semseg",
        title="PASCAL VOC 2012 segmentation",
        site="the PASCAL VOC project (host.robots.ox.ac.uk)",
        layout=tuple(
            f"VOCdevkit/VOC2012/{each}" for each in ("JPEGImages", "SegmentationClass", "ImageSets/Segmentation/{split}.txt")
        ),
        read=read_voc_segmentation,
        measure=lambda run: SegmentationMeasure(run, _table(VOC_CLASSES)),
        metrics=METRICS,
        protocol="mIoU of 21 classes at the original size, 255 ignored",
        splits=("train", "val", "trainval"),
        train_split="train",
        view="windows",
        sizes={"train": 1464, "val": 1449},
    ),
    OfficialBenchmark(
        name="nyuv2_semseg",
        title="NYUv2 segmentation",
        site="the NYU Depth Dataset V2 page of New York University; classMapping40.mat by Gupta et al. 2013",
        layout=(NYU_FILE, NYU_SPLITS, NYU_MAP),
        read=read_nyu_segmentation,
        measure=lambda run: SegmentationMeasure(run, _table(NYU40_CLASSES)),
        metrics=METRICS,
        protocol="mIoU of 40 classes at 480 x 640, 0 ignored",
        split="test",
        splits=("train", "test"),
        train_split="train",
        sizes={"train": 795, "test": 654},
        published=(
            Published("4M-21 B, fine-tuned, RGB", "miou", 0.587, "arXiv 2406.09406, table 3"),
            Published("4M-21 XL, fine-tuned, RGB", "miou", 0.639, "arXiv 2406.09406, table 3"),
        ),
    ),
    OfficialBenchmark(
        name="coco_semseg",
        title="COCO 2017 segmentation of 133 classes",
        site="the COCO page (cocodataset.org), panoptic annotations",
        layout=("{split}/*.jpg", "annotations/panoptic_{split}.json", "annotations/panoptic_{split}/*.png"),
        read=read_coco_panoptic,
        measure=_coco_measure,
        metrics=METRICS,
        protocol="mIoU of the 133 panoptic classes at the original size, void ignored",
        split="val2017",
        splits=("train2017", "val2017"),
        sizes={"val2017": 5000},
        published=(
            Published("4M-21 B, 10 samples, 224²", "miou", 0.425, "arXiv 2406.09406, table 1"),
            Published("4M-21 XL, 10 samples, 224²", "miou", 0.481, "arXiv 2406.09406, table 1"),
            Published("Mask2Former Swin-B", "miou", 0.457, "arXiv 2406.09406, table 1"),
        ),
    ),
)
