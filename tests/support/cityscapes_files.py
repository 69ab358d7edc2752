"""A small set of street scenes in the layout of Cityscapes: rectangles on a road below a sky."""

import json
from pathlib import Path

import numpy as np
from PIL import Image

SIZE = (48, 96)  # half as high as wide, as in Cityscapes
ROAD, SKY, PERSON, CAR, POLE, NOTHING = 7, 23, 24, 26, 17, 3  # label ids
COLORS = {ROAD: (90, 60, 90), SKY: (140, 180, 220), PERSON: (220, 30, 60), CAR: (20, 20, 140), POLE: (150, 150, 150),
          NOTHING: (0, 0, 0)}  # fmt: skip
FOCAL, BASELINE = 100.0, 0.2
METERS = {ROAD: 20.0, PERSON: 8.0, CAR: 10.0, POLE: 12.0, NOTHING: 5.0}
INSTANCES = {PERSON, CAR}


def write_street(root: Path, split: str, stem: str, things: list[tuple[int, int, int, int, int]]) -> None:
    """Write one image with labels, instances, disparities and camera.

    Args:
        root: of the set.
        split: of it.
        stem: of the names of the files, `city_sequence_frame`.
        things: label id, top, left, bottom and right in pixels.
    """
    labels = np.full(SIZE, ROAD, np.uint8)
    labels[: SIZE[0] // 3] = SKY
    instances = labels.astype(np.int32)
    for number, (label, top, left, bottom, right) in enumerate(things):
        labels[top:bottom, left:right] = label
        instances[top:bottom, left:right] = label * 1000 + number if label in INSTANCES else label
    disparity = np.zeros(SIZE, np.uint16)  # of the sky, stereo finds none
    for label, meters in METERS.items():
        disparity[labels == label] = round(BASELINE * FOCAL / meters * 256) + 1
    noise = np.random.default_rng(sum(stem.encode())).integers(-9, 10, (*SIZE, 3))
    rgb = np.clip(np.array([COLORS.get(i, (0, 0, 0)) for i in range(256)])[labels] + noise, 0, 255).astype(np.uint8)
    for kind, name, values in (
        ("leftImg8bit", "leftImg8bit", rgb),
        ("gtFine", "gtFine_labelIds", labels),
        ("gtFine", "gtFine_instanceIds", instances),
        ("disparity", "disparity", disparity),
    ):
        path = root / kind / split / stem.partition("_")[0] / f"{stem}_{name}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(values.astype(np.uint16) if name.endswith("instanceIds") else values).save(path)
    camera = root / "camera" / split / stem.partition("_")[0] / f"{stem}_camera.json"
    camera.parent.mkdir(parents=True, exist_ok=True)
    camera.write_text(json.dumps({"intrinsic": {"fx": FOCAL, "fy": FOCAL}, "extrinsic": {"baseline": BASELINE, "pitch": 0.03}}))


def write_streets(root: Path, split: str, count: int, seed: int = 0) -> None:
    """Write images with one to three cars and persons at random places."""
    rng = np.random.default_rng(seed)
    for index in range(count):
        things = []
        for _ in range(int(rng.integers(1, 4))):
            height, width = (int(value) for value in rng.integers(8, 20, 2))
            top, left = int(rng.integers(12, SIZE[0] - height)), int(rng.integers(0, SIZE[1] - width))
            things.append((int(rng.choice([PERSON, CAR])), top, left, top + height, left + width))
        write_street(root, split, f"{'aachen' if index % 2 else 'bochum'}_000000_{index:06d}", things)
