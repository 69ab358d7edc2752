"""Tiny data sets in official layouts, and a model with given answers for each image.

Image i is filled with one gray level, by which the model recognizes it after any resizing and after JPEG.
"""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import scipy.io
from PIL import Image

SIDE = 16
STEP = 24  # gray levels between two images


def gray_image(index: int, height: int, width: int) -> np.ndarray:
    return np.full((height, width, 3), STEP * (index + 1), np.uint8)


def save(path: Path, array: np.ndarray, **options: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(array).save(path, **options)


def write_json(path: Path, content: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content))


class Given:
    """A model whose answers are given: `answers[target](index of the image)`."""

    def __init__(self, **answers: Callable[[int], Any]) -> None:
        self.answers, self.asked = answers, list[dict[str, Any]]()

    def image_side(self, name: str) -> int:
        return SIDE

    def predict(self, conditions, targets, *, preset="greedy", seed=0, seeds=None):
        self.asked.append(conditions)
        assert conditions["rgb"].dtype == np.uint8 and conditions["rgb"].shape[1:] == (SIDE, SIDE, 3)
        (target,) = targets
        given = [self.answers[target](index) for index in self.indices(conditions["rgb"])]
        return {target: np.stack(given) if isinstance(given[0], np.ndarray) else given}

    def features(self, conditions):
        return np.stack([self.answers["features"](index) for index in self.indices(conditions["rgb"])])

    @staticmethod
    def indices(rgb: np.ndarray) -> list[int]:
        return [round(float(image.mean()) / STEP) - 1 for image in rgb]


def flat(value: float) -> np.ndarray:
    return np.full((SIDE, SIDE), value, np.float32)


def halves(left: int, right: int, height: int = SIDE, width: int = SIDE) -> np.ndarray:
    """Return class ids uint8: one class on the left, another on the right."""
    ids = np.full((height, width), left, np.uint8)
    ids[:, width // 2 :] = right
    return ids


def nyu(root: Path) -> None:
    """Write three images; image 3 (1-based) and image 1 are the test split, in this order."""
    root.mkdir(parents=True, exist_ok=True)
    with h5py.File(root / "nyu_depth_v2_labeled.mat", "w") as file:  # MATLAB stores arrays transposed
        file["images"] = np.stack([gray_image(i, 480, 640).transpose(2, 1, 0) for i in range(3)])
        file["rawDepths"] = np.stack([np.full((640, 480), i + 1.0, np.float32) for i in range(3)])
        file["labels"] = np.stack([np.ascontiguousarray(halves(i, i + 1, 480, 640).T).astype(np.uint16) for i in range(3)])
    scipy.io.savemat(root / "splits.mat", {"trainNdxs": [[2]], "testNdxs": [[3], [1]]})
    scipy.io.savemat(root / "classMapping40.mat", {"mapClass": [[40, 3, 12]]})


def kitti(root: Path) -> None:
    drive, name = "2011_09_26/2011_09_26_drive_0002_sync", "2011_09_26_drive_0002_sync"
    for index in range(2):
        save(root / f"{drive}/image_02/data/{index:010d}.png", gray_image(index, 40, 120))
        depth = np.full((40, 120), 256 * 10 * (index + 1), np.uint16)
        depth[::2] = 0
        save(root / f"val/{name}/proj_depth/groundtruth/image_02/{index:010d}.png", depth)
    lines = [f"{drive}/image_02/data/0000000000.png {name}/proj_depth/groundtruth/image_02/0000000000.png 721.5377"]
    lines += [f"{drive}/image_02/data/0000000009.png None 721.5377", f"{drive} 0000000001 l"]
    (root / "eigen_test_files.txt").write_text("\n".join(lines))


def diode(root: Path) -> None:
    for index, where in enumerate(("indoors", "outdoor")):
        base = root / f"val/{where}/scene_00000/scan_00000/0000{index}_{where}_000_000"
        save(base.with_suffix(".png"), gray_image(index, 24, 32))
        np.save(f"{base}_depth.npy", np.full((24, 32, 1), 4.0 * (index + 1), np.float32))
        mask = np.ones((24, 32), np.float32)
        mask[:4] = 0
        np.save(f"{base}_depth_mask.npy", mask)
        normal = np.zeros((24, 32, 3), np.float32)
        normal[4:] = (0, 1, 0)
        np.save(f"{base}_normal.npy", normal)


def ade(root: Path) -> None:
    names = ["wall", "building, edifice", "sky", "screen", "screen", *(f"class{i}" for i in range(6, 151))]
    rows = "\n".join(f"{i}\t0.1\t1\t1\t0\t{name}" for i, name in enumerate(names, 1))
    (root / "images/validation").mkdir(parents=True)
    (root / "objectInfo150.txt").write_text(f"Idx\tRatio\tTrain\tVal\tStuff\tName\n{rows}\n")
    for index in range(2):
        save(root / f"images/validation/ADE_val_{index + 1:08d}.jpg", gray_image(index, 20, 32))
        labels = halves(1 + index, 3, 20, 32)
        labels[0] = 0  # other
        save(root / f"annotations/validation/ADE_val_{index + 1:08d}.png", labels)


def cityscapes(root: Path) -> None:
    for index, city in enumerate(("munster", "frankfurt")):
        stem = f"{city}_000000_{index:06d}"
        save(root / f"leftImg8bit/val/{city}/{stem}_leftImg8bit.png", gray_image(index, 16, 32))
        save(
            root / f"gtFine/val/{city}/{stem}_gtFine_labelIds.png", halves(7, (26, 3)[index], 16, 32)
        )  # road, car; 3 is ignored


def voc(root: Path, year: int) -> None:
    folder = root / f"VOCdevkit/VOC{year}"
    split = {2007: "test", 2012: "val"}[year]
    for kind in ("Main", "Segmentation"):
        (folder / "ImageSets" / kind).mkdir(parents=True)
        (folder / f"ImageSets/{kind}/{split}.txt").write_text("000002\n000001\n")
    for index, name in enumerate(("000001", "000002")):
        save(folder / f"JPEGImages/{name}.jpg", gray_image(index, 20, 40))
        labels = Image.fromarray(halves(1, 15, 20, 40))
        labels.putpalette([v for i in range(256) for v in (i, 255 - i, 7)])
        (folder / "SegmentationClass").mkdir(exist_ok=True)
        labels.save(folder / f"SegmentationClass/{name}.png")
        boxes = "".join(
            f"<object><name>{kind}</name><difficult>{hard}</difficult>"
            f"<bndbox><xmin>{x}</xmin><ymin>1</ymin><xmax>{x + 9}</xmax><ymax>10</ymax></bndbox></object>"
            for kind, hard, x in (("dog", 0, 1), ("cat", 1, 21))
        )
        (folder / "Annotations").mkdir(exist_ok=True)
        (folder / f"Annotations/{name}.xml").write_text(f"<annotation>{boxes}</annotation>")


def coco(root: Path) -> None:
    """Write two images with boxes and captions, one without boxes, and panoptic annotations."""
    categories = [{"id": 1, "name": "person"}, {"id": 18, "name": "dog"}, {"id": 90, "name": "toothbrush"}]
    entries = [{"id": 7 + i, "file_name": f"{7 + i:012d}.jpg", "height": 40, "width": 80} for i in range(3)]
    for index, image in enumerate(entries):
        save(root / f"val2017/{image['file_name']}", gray_image(index, 40, 80))
    boxes = [(7, 18, [8, 4, 16, 12], 0), (8, 1, [40, 10, 20, 20], 0), (8, 1, [0, 0, 80, 40], 1)]
    annotations = [
        {"id": n, "image_id": i, "category_id": c, "bbox": b, "area": 0.8 * b[2] * b[3], "iscrowd": k}
        for n, (i, c, b, k) in enumerate(boxes, 1)
    ]
    instances = {"images": list(reversed(entries)), "annotations": annotations, "categories": categories}
    write_json(root / "annotations/instances_val2017.json", instances)
    texts = {7: ["A dog on grass.", "a brown dog"], 8: ["Two people walking", "people on a street"]}
    captions = [{"image_id": i, "id": n, "caption": t} for i, group in texts.items() for n, t in enumerate(group, 10 * i)]
    write_json(root / "annotations/captions_val2017.json", {"images": entries, "annotations": captions})
    stuff = [*categories, {"id": 200, "name": "rug-merged"}]
    segments = [{"id": 5, "category_id": 18, "iscrowd": 0}, {"id": 300 + 65536, "category_id": 200, "iscrowd": 0}]
    colors = np.zeros((40, 80, 3), np.uint8)
    colors[:, :40] = (5, 0, 0)
    colors[:, 40:] = (300 - 256, 1, 1)
    colors[:2] = 0  # void
    save(root / "annotations/panoptic_val2017/000000000007.png", colors)
    found = [{"image_id": 7, "file_name": "000000000007.png", "segments_info": segments}]
    write_json(root / "annotations/panoptic_val2017.json", {"annotations": found, "categories": list(reversed(stuff))})


def coco_2014(root: Path, images: int = 7) -> None:
    """Write images with five captions each, one without captions, and captions of an image that is not listed."""
    entries = [{"id": 3 * i + 1, "file_name": f"COCO_val2014_{3 * i + 1:012d}.jpg"} for i in range(images + 1)]
    for index, image in enumerate(entries):
        save(root / f"val2014/{image['file_name']}", gray_image(index % 8, 40, 60))
    captions = [
        {"image_id": image["id"], "id": 100 * image["id"] + n, "caption": f"image {image['id']} {n}"}
        for n in range(5)
        for image in [*entries[:-1], {"id": 999}]
    ]
    write_json(root / "annotations/captions_val2014.json", {"images": list(reversed(entries)), "annotations": captions})


def karpathy(root: Path) -> None:
    rows = []
    for index, split in enumerate(("test", "val", "test")):
        name = f"COCO_val2014_{index + 1:012d}.jpg"
        save(root / f"val2014/{name}", gray_image(index, 20, 20))
        sentences = [{"raw": f"caption {index} {n}"} for n in range(5)]
        rows.append({"filepath": "val2014", "filename": name, "cocoid": index + 1, "split": split, "sentences": sentences})
    write_json(root / "dataset_coco.json", {"images": rows})


def vqa(root: Path) -> None:
    for index in range(2):
        save(root / f"val2014/COCO_val2014_{index + 1:012d}.jpg", gray_image(index, 20, 30))
    questions = [("Is it a dog?", 1, 11), ("How many people?", 2, 10)]
    write_json(
        root / "v2_OpenEnded_mscoco_val2014_questions.json",
        {"questions": [{"question": q, "image_id": i, "question_id": n} for q, i, n in questions]},
    )
    answers = {11: ["yes"] * 3 + ["no"] * 7, 10: ["2"] * 5 + ["two"] * 5}
    annotations = [
        {
            "question_id": n,
            "image_id": 1,
            "answer_type": kind,
            "answers": [{"answer": a, "answer_id": k} for k, a in enumerate(given)],
        }
        for (n, given), kind in zip(answers.items(), ("yes/no", "number"), strict=True)
    ]
    write_json(root / "v2_mscoco_val2014_annotations.json", {"annotations": annotations})


def gqa(root: Path) -> None:
    save(root / "images/n1.jpg", gray_image(0, 20, 30))
    save(root / "images/n2.jpg", gray_image(1, 20, 30))
    entries = {"07": ("n2", "Is it red?", "no"), "03": ("n1", "What is it?", "dog")}
    content = {key: {"imageId": image, "question": q, "answer": a} for key, (image, q, a) in entries.items()}
    write_json(root / "questions1.2/testdev_balanced_questions.json", content)


WNIDS = ("n01440764", "n01443537", "n02510455")


def imagenet(root: Path, flat_val: bool = False) -> None:
    """Write three classes; the ids of the development kit are in another order than the WordNet ids."""
    kit = root / "ILSVRC2012_devkit_t12/data"
    kit.mkdir(parents=True)
    numbers = dict(zip(WNIDS, (2, 3, 1), strict=True))
    kind = [("ILSVRC2012_ID", int), ("WNID", object), ("words", object), ("num_children", int)]
    rows = [(number, wnid, f"name {wnid[-1]}, other", 0) for wnid, number in numbers.items()] + [(4, "n00000001", "above", 3)]
    scipy.io.savemat(kit / "meta.mat", {"synsets": np.array(rows, dtype=kind)})
    for index, wnid in enumerate(WNIDS):
        for n in range(7):
            save(root / f"train/{wnid}/{wnid}_{n}.JPEG", gray_image(index, 20, 24))
        name = f"ILSVRC2012_val_{index + 1:08d}.JPEG"
        save(root / (f"val/{name}" if flat_val else f"val/{wnid}/{name}"), gray_image(index, 20, 24))
    (kit / "ILSVRC2012_validation_ground_truth.txt").write_text("".join(f"{numbers[wnid]}\n" for wnid in WNIDS))
