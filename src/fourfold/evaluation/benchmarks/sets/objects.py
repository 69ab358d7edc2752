"""COCO 2017 and PASCAL VOC: boxes, captions and retrieval."""

import xml.etree.ElementTree as ElementTree
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from fourfold.evaluation.benchmarks.generation_measures import GenerationMeasure
from fourfold.evaluation.benchmarks.object_measures import CaptionMeasure, DetectionMeasure, RetrievalMeasure
from fourfold.evaluation.benchmarks.official import Example, OfficialBenchmark, Published, Run, StoredExamples
from fourfold.evaluation.benchmarks.sets.drawn_captions import DRAWN, choice_of_captions, read_generation_captions
from fourfold.evaluation.benchmarks.sets.reading import by_image, read_json_file, read_lines, read_rgb
from fourfold.evaluation.benchmarks.sets.segmentation import VOC_CLASSES
from fourfold.metrics.detection import TrueBoxes
from fourfold.metrics.metric import Metric

COCO_SITE = "the COCO page (cocodataset.org)"
VOC_SITE = "the PASCAL VOC project (host.robots.ox.ac.uk)"
AP_METRICS = (
    Metric("ap", "AP", "mean over IoU 0.50 to 0.95 and classes"),
    Metric("ap50", "AP50", "at IoU 0.50"),
    Metric("ap75", "AP75", "at IoU 0.75"),
    Metric("ap_small", "AP S", "objects below 32² pixels"),
    Metric("ap_medium", "AP M", "32² to 96² pixels"),
    Metric("ap_large", "AP L", "above 96² pixels"),
)
CAPTION_METRICS = (
    Metric("cider", "CIDEr-D", "0 to 10; papers print ten times as much"),
    Metric("bleu4", "BLEU-4", "of the corpus, 0 to 1"),
    Metric("rouge_l", "ROUGE-L", "0 to 1"),
)
GENERATION_METRICS = (
    Metric("clip_score", "CLIP score", "100 times the cosine of image and caption, by the text encoder of the run"),
    Metric("self_consistency", "self-consistency", "ROUGE-L of the caption and the one predicted from the generated image"),
    Metric("fid", "FID", "Fréchet distance of real and generated images, by features of the published Inception network", True),
    Metric("frechet_encoder", "Fréchet distance", "of real and generated images, by features of the text encoder", True),
)
RETRIEVAL_METRICS = tuple(
    Metric(f"{source}_r{k}", f"{title} R@{k}", f"own one among the {k} nearest")
    for source, title in (("image_to_text", "image → text"), ("text_to_image", "text → image"))
    for k in (1, 5, 10)
)


def coco_categories(content: dict[str, Any]) -> dict[int, str]:
    """Return the names of the categories by id, sorted by id: 80 of 1 to 90, with gaps."""
    return {each["id"]: each["name"] for each in sorted(content["categories"], key=lambda each: each["id"])}


def coco_boxes(annotations: list[dict[str, Any]], index_of: dict[int, int]) -> TrueBoxes:
    """Return the boxes of an image: `bbox` is x, y, width, height; `area` is that of the mask; crowds are ignored."""
    rows = np.array([each["bbox"] for each in annotations], float).reshape(-1, 4)
    return TrueBoxes(
        np.hstack([rows[:, :2], rows[:, :2] + rows[:, 2:]]),
        np.array([index_of[each["category_id"]] for each in annotations], int),
        np.array([each["area"] for each in annotations], float),
        np.array([bool(each.get("iscrowd", 0)) for each in annotations], bool),
    )


def read_coco_boxes(folder: Path, split: str) -> StoredExamples:
    """Return all images by id, also those without objects; boxes in memory take 56 bytes each."""
    content = read_json_file(folder / f"annotations/instances_{split}.json")
    classes = coco_categories(content)
    index_of = {category: index for index, category in enumerate(classes)}
    grouped = by_image(content["annotations"])
    images = sorted(content["images"], key=lambda each: each["id"])
    names = [(image["id"], image["file_name"]) for image in images]
    packed = [_packed(coco_boxes(grouped.get(number, []), index_of)) for number, _ in names]

    def load(row: tuple[int, str, bytes]) -> Example:
        number, name, boxes = row
        return Example(str(number), read_rgb(folder / split / name), _unpacked(boxes))

    return StoredExamples([(*name, boxes) for name, boxes in zip(names, packed, strict=True)], load, classes=classes)


def _packed(boxes: TrueBoxes) -> bytes:
    columns = (boxes.box_G4, boxes.class_G[:, None], boxes.area_G[:, None], boxes.ignored_G[:, None])
    return np.hstack(columns).astype(np.float64).tobytes()


def _unpacked(content: bytes) -> TrueBoxes:
    rows_G7 = np.frombuffer(content).reshape(-1, 7)
    return TrueBoxes(rows_G7[:, :4], rows_G7[:, 4].astype(int), rows_G7[:, 5], rows_G7[:, 6] > 0)


def read_coco_captions(folder: Path, split: str) -> Iterator[Example]:
    """Yield the images that have captions, by id."""
    content = read_json_file(folder / f"annotations/captions_{split}.json")
    grouped = by_image(content["annotations"])
    for image in sorted(content["images"], key=lambda each: each["id"]):
        if captions := [each["caption"] for each in grouped.get(image["id"], [])]:
            yield Example(str(image["id"]), read_rgb(folder / split / image["file_name"]), captions)


def read_karpathy(folder: Path, split: str) -> Iterator[Example]:
    """Yield a split of the published Karpathy list `dataset_coco.json`, which refers to the images of 2014."""
    for image in read_json_file(folder / "dataset_coco.json")["images"]:
        if image["split"] == split:
            rgb = read_rgb(folder / image["filepath"] / image["filename"])
            yield Example(str(image["cocoid"]), rgb, [sentence["raw"] for sentence in image["sentences"]])


def read_voc_boxes(root: Path, split: str) -> StoredExamples:
    """Return a split of one year of VOC; boxes count pixels from 1, here from 0."""

    def load(name: str) -> Example:
        return Example(name, read_rgb(root / f"JPEGImages/{name}.jpg"), voc_boxes(root / f"Annotations/{name}.xml"))

    return StoredExamples(read_lines(root / f"ImageSets/Main/{split}.txt"), load)


def voc_boxes(path: Path) -> TrueBoxes:
    """Return the boxes of an annotation file; difficult ones are ignored.

    Raises:
        ValueError: the file is absent, no annotation, or has entities, which a parser would expand.
    """
    try:
        text = path.read_text(encoding="utf-8")
        if "<!DOCTYPE" in text or "<!ENTITY" in text:
            raise ValueError("it declares entities, which are not allowed.")
        objects = ElementTree.fromstring(text).findall("object")  # noqa: S314  (no entities)
        edges = [[float(each.findtext(f"bndbox/{edge}", "")) for edge in ("xmin", "ymin", "xmax", "ymax")] for each in objects]
        classes = [VOC_CLASSES.index(each.findtext("name", "")) - 1 for each in objects]
    except (OSError, ValueError, ElementTree.ParseError) as error:
        raise ValueError(f"{path} cannot be read as a VOC annotation: {error}. Use the official file.") from error
    box_G4 = np.array(edges).reshape(-1, 4) - 1
    difficult = np.array([each.findtext("difficult", "0") == "1" for each in objects], bool)
    return TrueBoxes(box_G4, np.array(classes, int), np.prod(box_G4[:, 2:] - box_G4[:, :2] + 1, axis=1), difficult)


def _coco_measure(run: Run) -> DetectionMeasure:
    if run.classes is not None:
        return DetectionMeasure(run, run.classes)  # of `train2017` the file has 450 MB
    content = read_json_file(run.config.path / f"annotations/instances_{run.config.split}.json")
    return DetectionMeasure(run, coco_categories(content))


def _voc_benchmark(
    year: int, train_split: str, split: str, splits: tuple[str, ...], sizes: dict[str, int], published: tuple
) -> OfficialBenchmark:
    metric = "11 recall points" if year < 2010 else "area under the curve"
    root = f"VOCdevkit/VOC{year}"
    names = dict(enumerate(VOC_CLASSES[1:]))
    return OfficialBenchmark(
        name=f"voc{year}_boxes",
        title=f"PASCAL VOC {year} boxes",
        site=VOC_SITE,
        layout=tuple(f"{root}/{each}" for each in ("JPEGImages", "Annotations", "ImageSets/Main/{split}.txt")),
        read=lambda folder, name: read_voc_boxes(folder / root, name),
        measure=lambda run: DetectionMeasure(run, names, year),
        metrics=(Metric("ap50", "AP50", f"at IoU 0.5, {metric}, difficult objects ignored"),),
        protocol=f"AP50 of VOC {year}: {metric}",
        split=split,
        train_split=train_split,
        splits=splits,
        sizes=sizes,
        published=published,
    )


OBJECT_BENCHMARKS = (
    OfficialBenchmark(
        name="coco_boxes",
        title="COCO 2017 boxes",
        site=COCO_SITE,
        layout=("{split}/*.jpg", "annotations/instances_{split}.json"),
        read=read_coco_boxes,
        measure=_coco_measure,
        metrics=AP_METRICS,
        protocol="COCO's AP: 100 detections, areas of masks, crowds ignored",
        split="val2017",
        splits=("train2017", "val2017"),
        train_split="train2017",
        sizes={"train2017": 118287, "val2017": 5000},
        published=(
            Published("Faster R-CNN R50-FPN", "ap", 0.370, "torchvision"),
            Published("Mask R-CNN R50-FPN", "ap", 0.379, "torchvision"),
            Published("DETR R50", "ap", 0.399, "MMDetection"),
            Published("YOLOX-l", "ap", 0.494, "MMDetection"),
        ),
    ),
    OfficialBenchmark(
        name="coco_captions",
        title="COCO 2017 captions",
        site=COCO_SITE,
        layout=("{split}/*.jpg", "annotations/captions_{split}.json"),
        read=read_coco_captions,
        measure=CaptionMeasure,
        metrics=CAPTION_METRICS,
        protocol="BLEU-4, ROUGE-L, CIDEr-D of COCO's code with a PTB-like tokenizer",
        split="val2017",
        splits=("train2017", "val2017"),
        view="crop",
        sizes={"val2017": 5000},
    ),
    OfficialBenchmark(
        name="karpathy_captions",
        title="COCO captions, Karpathy split",
        site=f"{COCO_SITE}, images of 2014; dataset_coco.json of Karpathy and Fei-Fei 2015",
        layout=("dataset_coco.json", "*2014/*.jpg"),
        read=read_karpathy,
        measure=CaptionMeasure,
        metrics=CAPTION_METRICS,
        protocol="as coco_captions; test images are part of train2017",
        split="test",
        splits=("train", "restval", "val", "test"),
        view="crop",
        sizes={"val": 5000, "test": 5000},
    ),
    OfficialBenchmark(
        name="karpathy_retrieval",
        title="COCO retrieval, Karpathy split",
        site=f"{COCO_SITE}, images of 2014; dataset_coco.json of Karpathy and Fei-Fei 2015",
        layout=("dataset_coco.json", "*2014/*.jpg"),
        read=read_karpathy,
        measure=RetrievalMeasure,
        metrics=RETRIEVAL_METRICS,
        protocol="cosine of predicted CLIP features and text embeddings; all images and captions of the split",
        split="test",
        splits=("val", "test"),
        view="crop",
        sizes={"val": 5000, "test": 5000},
    ),
    OfficialBenchmark(
        name="coco_generation",
        title="COCO, caption to image",
        site=COCO_SITE,
        layout=("{split}/*.jpg", "annotations/captions_{split}.json"),
        read=read_generation_captions,
        choose=lambda config: read_generation_captions(config.path, str(config.split), config.caption_ids),
        measure=lambda run: GenerationMeasure(run, choice_of_captions(run.config)),
        metrics=GENERATION_METRICS,
        protocol="one image from one caption of each image: the first of 2017, of 2014 one that is drawn",
        split="val2017",
        splits=("train2017", "val2017", *DRAWN),
        view="crop",
        sizes={"val2017": 5000, **DRAWN},
    ),
    _voc_benchmark(
        2007,
        "trainval",
        "test",
        ("trainval", "test"),
        {"trainval": 5011, "test": 4952},
        (
            Published("Faster R-CNN VGG16 (07+12)", "ap50", 0.747, "ChainerCV"),
            Published("SSD300 (07+12)", "ap50", 0.778, "ChainerCV"),
        ),
    ),
    _voc_benchmark(2012, "train", "val", ("train", "val", "trainval"), {"trainval": 11540}, ()),
)
