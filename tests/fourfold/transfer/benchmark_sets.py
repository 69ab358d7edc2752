"""Tiny public benchmarks in their official layouts, whose answers can be seen: by the color of an image, or of its half."""

import json
from pathlib import Path
from typing import Any

import numpy as np
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
