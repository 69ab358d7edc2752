"""Boxes that come with the data, in COCO's format (arXiv 1405.0312): one JSON file for all images."""

from collections import defaultdict
from functools import lru_cache
from pathlib import Path
from typing import Any

from pydantic import ConfigDict, ValidationError

from fourfold.configuration import Config
from fourfold.digests import sha256_file
from fourfold.labelers.boxes import boxes_of
from fourfold.labelers.class_names import box_table
from fourfold.labelers.precomputed.files import keys_of_name, require_all
from fourfold.labelers.precomputed.maps import PrecomputedConfig
from fourfold.labelers.protocol import Batch, Labeler, LabelingContext
from fourfold.modalities.class_table import ClassTable
from fourfold.storage import read_json

MAX_BOXES = 100  # of an image, those with the highest scores
MIN_VISIBLE = 0.3  # share of a box that must be within the center square that ingestion keeps


class _Open(Config):
    """A part of a COCO file; other fields are ignored."""

    model_config = ConfigDict(extra="ignore", frozen=True)


class _Image(_Open):
    id: int
    file_name: str
    width: int
    height: int


class _Annotation(_Open):
    image_id: int
    category_id: int
    bbox: tuple[float, float, float, float]  # x, y, width, height in pixels
    score: float = 1.0


class _Category(_Open):
    id: int
    name: str


class CocoFile(_Open):
    """The parts of a COCO file that boxes need."""

    images: tuple[_Image, ...]
    annotations: tuple[_Annotation, ...]
    categories: tuple[_Category, ...]


class PrecomputedBoxes(Labeler):
    """Labels `det`."""

    name, title, modality = "precomputed_det", "Boxes that come with the data (COCO's format)", "det"
    kind = "precomputed"
    config_class = PrecomputedConfig
    config: PrecomputedConfig

    def __init__(self, config: Any = None, context: LabelingContext | None = None) -> None:
        super().__init__(config, context)
        self.boxes = boxes_by_key(Path(self.config.path).expanduser())

    @classmethod
    def require(cls, config: PrecomputedConfig) -> None:
        """Raise ValueError when the file does not exist or is not in COCO's format."""
        read_coco(Path(config.path).expanduser())

    @classmethod
    def class_table(cls, config: PrecomputedConfig) -> ClassTable:
        """Return the categories of the file; each is a thing."""
        return box_table([category.name for category in read_coco(Path(config.path).expanduser()).categories])

    def origin(self) -> dict[str, Any]:
        """Return file, license and digest."""
        digest = sha256_file(Path(self.config.path).expanduser())
        return {"kind": self.kind, "model": self.config.path, "license": self.config.license, "sha256": digest}

    def label(self, batch: Batch, output: Any = None) -> list[dict[str, Any]]:
        """Return `{"instances": [{"box": [xmin, ymin, xmax, ymax] in 0-1, "class_name", "score"}, ...]}`, best first.

        Raises:
            ValueError: the file does not list an image.
        """
        require_all(batch["__key__"], self.boxes, self.config.path)
        return [self.boxes[key] for key in batch["__key__"]]


@lru_cache(maxsize=4)
def read_coco(path: Path) -> CocoFile:
    """Return the content of a file in COCO's format; raises ValueError when it is none."""
    if not path.is_file():
        raise ValueError(f"path is {str(path)!r}: there is no such file. Give the JSON of the annotations in COCO's format.")
    try:
        return CocoFile.model_validate(read_json(path))
    except (ValidationError, ValueError) as error:
        detail = str(error).splitlines()[0]
        raise ValueError(f"{path} is not in COCO's format ({detail}): it needs images, annotations and categories.") from error


@lru_cache(maxsize=4)
def boxes_by_key(path: Path) -> dict[str, dict[str, Any]]:
    """Return the boxes of each image of a COCO file, in the stored format, by the keys that the image may have."""
    content = read_coco(path)
    names = {category.id: category.name for category in content.categories}
    by_image: dict[int, list[_Annotation]] = defaultdict(list)
    for annotation in content.annotations:
        if annotation.category_id not in names:
            unknown = annotation.category_id
            raise ValueError(
                f"{path}: annotation of category {unknown}, which the file does not define. Add it to `categories`."
            )
        by_image[annotation.image_id].append(annotation)
    found = {}
    for image in content.images:
        kept = [(box, one) for one in by_image[image.id] if (box := _in_square(one.bbox, image)) is not None]
        boxes, annotations = [box for box, _ in kept], [one for _, one in kept]
        value = boxes_of(boxes, [names[one.category_id] for one in annotations], [one.score for one in annotations], MAX_BOXES)
        found.update(dict.fromkeys(keys_of_name(image.file_name), value))
    return found


def _in_square(bbox: tuple[float, float, float, float], image: _Image) -> list[float] | None:
    """Return a box as shares of the center square; None if too little of it is inside."""
    side = min(image.width, image.height)
    left, top = (image.width - side) / 2, (image.height - side) / 2
    x, y, width, height = bbox
    corners = [(x - left) / side, (y - top) / side, (x + width - left) / side, (y + height - top) / side]
    inside = [min(max(corner, 0.0), 1.0) for corner in corners]
    area, visible = width * height / side**2, (inside[2] - inside[0]) * (inside[3] - inside[1])
    return inside if area > 0 and visible >= MIN_VISIBLE * area else None
