"""The classes of a segmentation: their names and what each id means for scoring. A labeler declares it, manifests carry it."""

from functools import cached_property

import numpy as np
from pydantic import Field, model_validator

from fourfold.configuration import Config
from fourfold.suggestions import unknown_name

MAX_ID = 255  # class ids are stored as 8-bit PNG


class ClassTable(Config):
    """Names, roles and colors of the class ids of a segmentation; class `i` is `names[i]`. Serializes to JSON and back.

    Raises ValueError (from pydantic) when names repeat, or an id is out of range or listed twice.
    """

    names: tuple[str, ...] = Field(min_length=1, max_length=MAX_ID + 1)
    ignored: tuple[int, ...] = ()  # ids without a label, e.g. 255: excluded from losses and scores
    background: tuple[int, ...] = ()  # classes without a surface at a finite distance, e.g. sky: no depth, no normals
    things: tuple[int, ...] = ()  # classes of countable objects; all others are "stuff" (Kirillov et al. 2019, panoptic)
    colors: tuple[tuple[int, int, int], ...] = ()  # RGB, 0 to 255, one for each class; () takes those of PASCAL VOC

    @model_validator(mode="after")
    def _check(self) -> "ClassTable":
        repeated = sorted({name for name in self.names if self.names.count(name) > 1})
        if repeated:
            raise ValueError(f"Class names must be unique; repeated: {', '.join(repeated)}.")
        for field, limit in (("ignored", MAX_ID), ("background", self.num_classes - 1), ("things", self.num_classes - 1)):
            ids = getattr(self, field)
            wrong = [i for i in ids if not 0 <= i <= limit]
            if wrong or len(set(ids)) < len(ids):
                raise ValueError(f"{field} is {list(ids)}; allowed: different ids from 0 to {limit}.")
        both = sorted(set(self.background) & set(self.things))
        if both:
            raise ValueError(f"Classes {both} are listed as background and as things; choose one.")
        if self.colors and len(self.colors) != self.num_classes:
            raise ValueError(f"{len(self.colors)} colors for {self.num_classes} classes; give one for each class, or none.")
        if any(not 0 <= level <= 255 for color in self.colors for level in color):
            raise ValueError("colors must be RGB values from 0 to 255.")
        return self

    @property
    def num_classes(self) -> int:
        """Number of classes; ids run from 0 to `num_classes - 1`, besides the ignored ones."""
        return len(self.names)

    @property
    def thing_names(self) -> tuple[str, ...]:
        """Names of the classes of countable objects, in the order of `things`."""
        return tuple(self.names[i] for i in self.things)

    @cached_property
    def palette(self) -> np.ndarray:
        """RGB colors of all 256 possible ids, uint8 (256, 3); ids that are no class are black."""
        colors_256x3 = np.zeros((MAX_ID + 1, 3), np.uint8)
        colors_256x3[: self.num_classes] = self.colors or [_voc_color(i) for i in range(self.num_classes)]
        return colors_256x3

    def id_of(self, name: str) -> int:
        """Return the id of a class; raises ValueError that suggests the nearest name when there is none."""
        if name not in self.names:
            raise ValueError(unknown_name("class", name, self.names))
        return self.names.index(name)

    def check_ids(self, ids: np.ndarray) -> None:
        """Check class ids of any shape; raises ValueError that names an id which is neither a class nor ignored."""
        wrong = ids[~np.isin(ids, (*range(self.num_classes), *self.ignored))]
        if wrong.size:
            extra = f" and {', '.join(map(str, self.ignored))} (ignored)" if self.ignored else ""
            raise ValueError(f"Class id {wrong.flat[0]} is out of range; allowed: 0 to {self.num_classes - 1}{extra}.")

    def is_ignored(self, ids: np.ndarray) -> np.ndarray:
        """Return where class ids have no label: bool, in the shape of `ids`."""
        return np.isin(ids, self.ignored)

    def is_background(self, ids: np.ndarray) -> np.ndarray:
        """Return where there is no surface at a finite distance, e.g. sky: bool, in the shape of `ids`."""
        return np.isin(ids, self.background)


def _voc_color(index: int) -> tuple[int, int, int]:
    """Return the color of a class in the PASCAL VOC devkit: the bits of the id, dealt out to R, G and B from the highest."""
    red = green = blue = 0
    for shift in range(7, -1, -1):
        red, green, blue = red | (index & 1) << shift, green | (index >> 1 & 1) << shift, blue | (index >> 2 & 1) << shift
        index >>= 3
    return red, green, blue
