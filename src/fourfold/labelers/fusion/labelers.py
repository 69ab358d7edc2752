"""The labelers of kind `fusion`: depth, segmentation, boxes."""

from typing import Any

import numpy as np
from pydantic import Field, ValidationError, model_validator

from fourfold.configuration import Config
from fourfold.labelers.boxes import boxes_of
from fourfold.labelers.class_names import box_table, coco_name
from fourfold.labelers.fusion.combining import fuse_boxes, fuse_depths, vote
from fourfold.labelers.kinds import labeler_of_kind
from fourfold.labelers.protocol import Batch, Labeler, LabelingContext, Rated
from fourfold.labelers.registry import LABELERS
from fourfold.modalities.class_table import MAX_ID, ClassTable

UNSURE = MAX_ID  # the id of pixels about which the teachers disagree


class FusionConfig(Config):
    """Which teachers are combined."""

    of: tuple[dict[str, Any], ...] = Field(min_length=2)  # a section with `kind` for each; the first one leads
    weights: tuple[float, ...] = ()  # how much each counts; (): all the same

    @model_validator(mode="after")
    def _weights_fit(self) -> "FusionConfig":
        if self.weights and (len(self.weights) != len(self.of) or min(self.weights) <= 0):
            raise ValueError(
                f"weights are {list(self.weights)} for {len(self.of)} teachers. Give one above 0 for each, or none."
            )
        return self

    @property
    def weights_T(self) -> tuple[float, ...]:
        """A weight for each teacher."""
        return self.weights or (1.0,) * len(self.of)


class SegmentationFusionConfig(FusionConfig):
    """Settings of voting."""

    min_agreement: float = Field(0.0, ge=0, le=1)  # share of the weights that must agree; other pixels are ignored


class BoxFusionConfig(FusionConfig):
    """Settings of weighted boxes fusion."""

    min_overlap: float = Field(0.55, gt=0, le=1)  # IoU from which on two boxes show the same object
    max_boxes: int = Field(100, ge=1)  # of an image, those with the highest scores


class Fusion(Labeler):
    """Runs all teachers, which read the same batch. The confidence of a label is how far they agree."""

    kind, rated = "fusion", True
    config: FusionConfig

    def __init__(self, config: Any = None, context: LabelingContext | None = None) -> None:
        super().__init__(config, context)
        self.teachers = [
            entry(settings, self.context) for entry, settings in (teacher(one, self.modality) for one in self.config.of)
        ]
        self.requires = tuple(sorted({column for one in self.teachers for column in one.requires}))

    @classmethod
    def require(cls, config: FusionConfig) -> None:
        """Raise ValueError when something is missing that one of the teachers needs."""
        for section in config.of:
            entry, settings = teacher(section, cls.modality)
            entry.require(settings)

    def origin(self) -> dict[str, Any]:
        """Return the origin of each teacher."""
        return {"kind": self.kind, "of": [{"name": one.name, **one.origin()} for one in self.teachers]}

    def labels_T(self, batch: Batch) -> list[list[Any]]:
        """Return the labels of each teacher for a batch."""
        labels_T = [one.label(batch) for one in self.teachers]
        return [[one.value if isinstance(one, Rated) else one for one in labels] for labels in labels_T]


class FusedDepth(Fusion):
    """Labels `depth`: the median of all teachers, after they are aligned with the first."""

    name, title, modality = "fusion_depth", "Depth by several teachers", "depth"
    config_class = FusionConfig

    def label(self, batch: Batch, output: Any = None) -> list[Rated]:
        """Return float16 (H, W), meters, with the share of pixels in which the teachers agree."""
        found = [fuse_depths(depths_THW) for depths_THW in zip(*self.labels_T(batch), strict=True)]
        return [Rated(depth_HW.astype(np.float16), agreement) for depth_HW, agreement in found]


class FusedSegmentation(Fusion):
    """Labels `semseg`: the class of the most teachers. Classes are those of the first; other names abstain."""

    name, title, modality = "fusion_semseg", "Segmentation by several teachers", "semseg"
    config_class = SegmentationFusionConfig
    config: SegmentationFusionConfig

    @classmethod
    def class_table(cls, config: SegmentationFusionConfig) -> ClassTable:
        """Return the classes of the first teacher, and the id of pixels about which the teachers disagree."""
        table = _tables(config, cls.modality)[0]
        ignored = (*table.ignored, *((UNSURE,) if UNSURE not in table.ignored else ()))
        return table.model_copy(update={"ignored": ignored}) if config.min_agreement > 0 else table

    def label(self, batch: Batch, output: Any = None) -> list[Rated]:
        """Return uint8 (H, W), class ids, with the mean share of votes for them."""
        tables = _tables(self.config, self.modality)
        ids = {coco_name(name): number for number, name in enumerate(tables[0].names)}
        maps = []
        for table in tables:
            renamed_256 = np.full(MAX_ID + 1, MAX_ID, np.uint8)
            renamed_256[: table.num_classes] = [ids.get(coco_name(name), MAX_ID) for name in table.names]
            maps.append(renamed_256)
        found = []
        for ids_THW in zip(*self.labels_T(batch), strict=True):
            same_THW = [renamed[ids_HW] for renamed, ids_HW in zip(maps, ids_THW, strict=True)]
            winner_HW, agreement_HW = vote(same_THW, self.config.weights_T, tables[0].num_classes)
            is_unsure_HW = agreement_HW < self.config.min_agreement
            found.append(Rated(np.where(is_unsure_HW, np.uint8(UNSURE), winner_HW), float(agreement_HW.mean())))
        return found


class FusedBoxes(Fusion):
    """Labels `det`: weighted boxes fusion; a box that few teachers see has a low score."""

    name, title, modality = "fusion_det", "Boxes by several teachers", "det"
    config_class = BoxFusionConfig
    config: BoxFusionConfig

    @classmethod
    def class_table(cls, config: BoxFusionConfig) -> ClassTable:
        """Return the names of all teachers, each a thing."""
        return box_table([coco_name(name) for table in _tables(config, cls.modality) for name in table.names])

    def label(self, batch: Batch, output: Any = None) -> list[Rated]:
        """Return `{"instances": [{"box": [xmin, ymin, xmax, ymax] in 0-1, "class_name", "score"}, ...]}`, best first.

        The confidence is the mean share of detectors that see a box; 1 where none sees any.
        """
        found = []
        for labels_T in zip(*self.labels_T(batch), strict=True):
            named_T = [
                [{**one, "class_name": coco_name(one["class_name"])} for one in label["instances"]] for label in labels_T
            ]
            fused = fuse_boxes(named_T, self.config.weights_T, self.config.min_overlap)
            boxes, names, scores, agreements = zip(*fused, strict=True) if fused else ((), (), (), ())
            value = boxes_of(list(boxes), list(names), list(scores), self.config.max_boxes)
            found.append(Rated(value, float(np.mean(agreements)) if agreements else 1.0))
        return found


def teacher(section: dict[str, Any], modality: str) -> tuple[type[Labeler], Any]:
    """Return the class and the settings of one of the combined teachers.

    Raises:
        ValueError: the kind is unknown, its settings are wrong, or it is trained here, which a combination cannot use.
    """
    entry = LABELERS.get(labeler_of_kind(modality, section.get("kind")))
    if entry.teacher is not None:
        raise ValueError(
            f"Labeler {entry.name!r} is trained here; fusion needs pretrained or computed ones. Choose another kind."
        )
    try:
        return entry, entry.config_class.model_validate({key: value for key, value in section.items() if key != "kind"})
    except ValidationError as error:
        problems = "; ".join(".".join(map(str, found["loc"])) + f": {found['msg']}" for found in error.errors())
        raise ValueError(f"Settings of {entry.name!r} in a fusion are wrong: {problems}. Correct them.") from error


def _tables(config: FusionConfig, modality: str) -> list[ClassTable]:
    """Return the class table of each teacher; raises ValueError when one has none."""
    tables = []
    for section in config.of:
        entry, settings = teacher(section, modality)
        table = entry.class_table(settings)
        if table is None:
            raise ValueError(f"Labeler {entry.name!r} has no class table, which fusion needs. Choose another kind.")
        tables.append(table)
    return tables
