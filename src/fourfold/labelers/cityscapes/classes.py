"""The 19 classes of Cityscapes that are evaluated (Cordts et al. 2016, arXiv 1604.01685)."""

import numpy as np

from fourfold.modalities.class_table import MAX_ID, ClassTable

# label id in the official files → class, in the order of the train ids
CITYSCAPES_CLASSES = {
    7: "road", 8: "sidewalk", 11: "building", 12: "wall", 13: "fence", 17: "pole", 19: "traffic light", 20: "traffic sign",
    21: "vegetation", 22: "terrain", 23: "sky", 24: "person", 25: "rider", 26: "car", 27: "truck", 28: "bus", 31: "train",
    32: "motorcycle", 33: "bicycle",
}  # fmt: skip
THINGS = {number: CITYSCAPES_CLASSES[number] for number in (24, 25, 26, 27, 28, 31, 32, 33)}  # those with instances
SKY = 23
COLORS = (  # of the official development kit
    (128, 64, 128), (244, 35, 232), (70, 70, 70), (102, 102, 156), (190, 153, 153), (153, 153, 153), (250, 170, 30),
    (220, 220, 0), (107, 142, 35), (152, 251, 152), (70, 130, 180), (220, 20, 60), (255, 0, 0), (0, 0, 142), (0, 0, 70),
    (0, 60, 100), (0, 80, 100), (0, 0, 230), (119, 11, 32),
)  # fmt: skip
_NAMES = tuple(CITYSCAPES_CLASSES.values())
CLASS_TABLE = ClassTable(
    names=_NAMES,
    ignored=(MAX_ID,),
    background=(_NAMES.index(CITYSCAPES_CLASSES[SKY]),),
    colors=COLORS,
    things=tuple(_NAMES.index(name) for name in THINGS.values()),
)


def train_ids() -> np.ndarray:
    """Return the train id of each label id, uint8 (256,): 255 for those without a class."""
    found = np.full(MAX_ID + 1, MAX_ID, np.uint8)
    found[list(CITYSCAPES_CLASSES)] = np.arange(len(CITYSCAPES_CLASSES))
    return found
