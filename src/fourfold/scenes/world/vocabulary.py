"""The closed vocabulary of the scenes: the same names in masks, boxes, captions and answers."""

from fourfold.modalities.class_table import ClassTable

SHAPES = ("sphere", "box", "cylinder", "cone")
SIZES = ("large", "small")
TEXTURES = ("plain", "striped")
FLOORS = ("plain", "checkered")
NUMBERS = ("zero", "one", "two", "three", "four")  # NUMBERS[3] == "three"

# Eight hues that stay apart in shade; sRGB, 0-1.
COLOR_VALUES: dict[str, tuple[float, float, float]] = {
    "red": (0.86, 0.12, 0.12),
    "orange": (1.00, 0.52, 0.06),
    "yellow": (0.98, 0.88, 0.14),
    "green": (0.16, 0.64, 0.20),
    "cyan": (0.16, 0.80, 0.84),
    "blue": (0.13, 0.28, 0.88),
    "purple": (0.50, 0.16, 0.72),
    "pink": (1.00, 0.50, 0.74),
}
COLORS = tuple(COLOR_VALUES)

CLASS_NAMES = ("sky", "ground", *SHAPES)  # the position is the id in the semantic mask
OBJECT_CLASSES = SHAPES  # classes that have boxes
SKY_ID = CLASS_NAMES.index("sky")
GROUND_ID = CLASS_NAMES.index("ground")
CLASS_TABLE = ClassTable(
    names=CLASS_NAMES,
    background=(SKY_ID,),
    things=tuple(CLASS_NAMES.index(name) for name in OBJECT_CLASSES),
    # Colors that color-blind readers can tell apart (Okabe and Ito 2008).
    colors=((206, 223, 238), (176, 168, 154), (0, 114, 178), (213, 94, 0), (0, 158, 115), (240, 205, 40)),
)
