"""Tiny public benchmarks in their official layouts, whose answers can be seen: by the color of an image, or of its half."""

import json
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import scipy.io
from PIL import Image

COLORS = ((220, 30, 30), (30, 200, 60), (40, 60, 220))
WNIDS = ("n01440764", "n01443537", "n02510455")
NAMES = ("red", "green", "blue")


def colored(color: int, index: int, height: int = 36, width: int = 48) -> np.ndarray:
    """Return an image uint8 (height, width, 3) of a color that differs a little between indices."""
    noise = np.random.default_rng(index).integers(-25, 26, (height, width, 3))
    return np.clip(np.array(COLORS[color]) + noise, 0, 255).astype(np.uint8)


def save(path: Path, array: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(array).save(path)


def write_json(path: Path, content: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content))


def imagenet(root: Path, train: int = 10, val: int = 4) -> Path:
    """Write three classes with so many images each, in Kaggle's layout."""
    for color, wnid in enumerate(WNIDS):
        for index in range(train):
            save(root / f"ILSVRC/Data/CLS-LOC/train/{wnid}/{wnid}_{index}.JPEG", colored(color, index))
        for index in range(val):
            number = val * color + index + 1
            save(root / f"ILSVRC/Data/CLS-LOC/val/ILSVRC2012_val_{number:08d}.JPEG", colored(color, 100 + index))
    lines = [f"ILSVRC2012_val_{val * color + i + 1:08d},{wnid} 1 2 3 4" for color, wnid in enumerate(WNIDS) for i in range(val)]
    (root / "LOC_val_solution.csv").write_text("\n".join(["ImageId,PredictionString", *lines]))
    (root / "LOC_synset_mapping.txt").write_text("\n".join(f"{w} {n}" for w, n in zip(WNIDS, NAMES, strict=True)))
    return root


def vqa(root: Path, train: int = 10, val: int = 4) -> Path:
    """Write images of three colors with two questions each: about the color, which the image answers, and `is it a dog?`."""
    for split, count in (("train2014", train), ("val2014", val)):
        questions, annotations = [], []
        for number in range(3 * count):
            color = number % 3
            image = number + (1 if split == "train2014" else 1001)
            save(root / f"{split}/COCO_{split}_{image:012d}.jpg", colored(color, image))
            asked = (
                ("What color is it?", [NAMES[color]] * 7 + ["a " + NAMES[color]] + ["teal", "gray"], "other"),
                ("Is it a dog?", ["no"] * 10, "yes/no"),
            )
            for kind, (question, answers, answer_type) in enumerate(asked):
                key = 10 * image + kind
                questions.append({"image_id": image, "question": question, "question_id": key})
                given = [{"answer": answer, "answer_id": i} for i, answer in enumerate(answers, 1)]
                annotations.append({"question_id": key, "image_id": image, "answer_type": answer_type, "answers": given})
        write_json(root / f"v2_OpenEnded_mscoco_{split}_questions.json", {"questions": questions})
        write_json(root / f"v2_mscoco_{split}_annotations.json", {"annotations": annotations})
    return root


def gqa(root: Path) -> Path:
    """Write six questions to learn and three that are scored; answers are those of VQA."""
    for split, count in (("train_balanced", 6), ("testdev_balanced", 3)):
        content = {}
        for number in range(count):
            save(root / f"images/{split}{number}.jpg", colored(number % 3, number))
            content[f"{number:02d}"] = {
                "imageId": f"{split}{number}",
                "question": "Which color is it?",
                "answer": NAMES[number % 3],
            }
        write_json(root / f"questions1.2/{split}_questions.json", content)
    return root


def voc(root: Path, train: int = 8, val: int = 3) -> Path:
    """Write scenes with the class 1 (aeroplane), red, on the left and 15 (person), blue, on the right."""
    folder = root / "VOCdevkit/VOC2012"
    (folder / "ImageSets/Segmentation").mkdir(parents=True)
    for split, count in (("train", train), ("val", val)):
        names = [f"{split}_{index}" for index in range(count)]
        (folder / f"ImageSets/Segmentation/{split}.txt").write_text("\n".join(names))
        for index, name in enumerate(names):
            left = 12 + 4 * (index % 7)
            rgb, ids = colored(0, index), np.full((36, 48), 1, np.uint8)
            rgb[:, left:], ids[:, left:] = colored(2, index)[:, left:], 15
            ids[0] = 255  # ignored
            save(folder / f"JPEGImages/{name}.jpg", rgb)
            labels = Image.fromarray(ids)
            labels.putpalette([value for i in range(256) for value in (i, 255 - i, 7)])
            (folder / "SegmentationClass").mkdir(exist_ok=True)
            labels.save(folder / f"SegmentationClass/{name}.png")
    return root


DEPTHS = (2.0, 6.0)  # meters: red is near, blue is far


def near_and_far(index: int, height: int, width: int, left: int) -> tuple[np.ndarray, np.ndarray]:
    """Return an image uint8 (height, width, 3), red on the left of a column and blue on its right, and its depth in meters."""
    rgb, depth = colored(0, index, height, width), np.full((height, width), DEPTHS[0])
    rgb[:, left:], depth[:, left:] = colored(2, index, height, width)[:, left:], DEPTHS[1]
    return rgb, depth


def nyu(root: Path, train: int = 8, test: int = 2) -> Path:
    """Write scenes of 480 x 640 pixels whose depth is that of their colors; the sensor has none in the first 60 rows."""
    root.mkdir(parents=True, exist_ok=True)
    scenes = [near_and_far(i, 480, 640, 200 + 40 * (i % 6)) for i in range(train + test)]
    with h5py.File(root / "nyu_depth_v2_labeled.mat", "w") as file:  # MATLAB stores arrays transposed
        file["images"] = np.stack([rgb.transpose(2, 1, 0) for rgb, _ in scenes])
        depth = np.stack([depth.T for _, depth in scenes]).astype(np.float32)
        depth[..., :60] = 0
        file["rawDepths"] = depth
    order = np.arange(1, train + test + 1)
    scipy.io.savemat(root / "splits.mat", {"trainNdxs": order[:train, None], "testNdxs": order[train:, None]})
    return root


def kitti(root: Path, train: int = 5, test: int = 2) -> Path:
    """Write wide frames of which a third of the pixels has a depth; the last one of the training list has no file of depth."""
    drive, name = "2011_09_26/2011_09_26_drive_0001_sync", "2011_09_26_drive_0001_sync"
    lines: dict[str, list[str]] = {"eigen_train": [], "eigen_test": []}
    for index in range(train + test):
        rgb, depth = near_and_far(index, 36, 110, 40 + 6 * (index % 5))
        image, truth = f"{drive}/image_02/data/{index:010d}.png", f"{name}/proj_depth/groundtruth/image_02/{index:010d}.png"
        save(root / image, rgb)
        depth[np.add.outer(np.arange(36), np.arange(110)) % 3 > 0] = 0
        save(root / "train" / truth, (depth * 256).astype(np.uint16))
        lines["eigen_train" if index < train else "eigen_test"].append(f"{image} {truth} 721.5")
    lines["eigen_train"].append(f"{drive}/image_02/data/0000000099.png {name}/proj_depth/groundtruth/image_02/0000000099.png 1")
    for split, rows in lines.items():
        (root / f"{split}_files.txt").write_text("\n".join(rows))
    return root
