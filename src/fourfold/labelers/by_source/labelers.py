"""One labeler for each modality that passes the images of each source to the labeler of that source."""

from typing import Any

import numpy as np
from pydantic import Field

from fourfold.configuration import Config
from fourfold.data.missing import Missing
from fourfold.labelers.class_names import box_table
from fourfold.labelers.fusion.labelers import teacher
from fourfold.labelers.losses import FILTERED
from fourfold.labelers.protocol import Batch, Labeler, LabelingContext, Rated
from fourfold.modalities.class_table import ClassTable
from fourfold.suggestions import unknown_name

SOURCE = "source"  # the column with the name of the source of each image
MODALITIES = (
    "depth", "normal", "semseg", "det", "clip", "clip_global", "dinov2", "dinov2_global", "canny_edge", "sam_edge", "keypoints",
)  # fmt: skip


class BySourceConfig(Config):
    """Which labeler each source has."""

    of: dict[str, dict[str, Any] | None] = Field(min_length=1)  # by source: a section with `kind`, or null for no label


class BySource(Labeler):
    """Labels the images of each source with its own labeler."""

    kind = "by_source"
    config_class = BySourceConfig
    config: BySourceConfig

    def __init__(self, config: Any = None, context: LabelingContext | None = None) -> None:
        super().__init__(config, context)
        self.labelers = {
            name: entry(settings, self.context)
            for name, section in self.config.of.items()
            if section is not None
            for entry, settings in [teacher(section, self.modality)]
        }
        self.requires = tuple(sorted({SOURCE, *(column for one in self.labelers.values() for column in one.requires)}))

    @classmethod
    def require(cls, config: BySourceConfig) -> None:
        """Raise ValueError when something is missing that one of the labelers needs."""
        for section in filter(None, config.of.values()):
            entry, settings = teacher(section, cls.modality)
            entry.require(settings)

    @classmethod
    def class_table(cls, config: BySourceConfig) -> ClassTable | None:
        """Return the classes of all labelers; raises ValueError when those of segmentations differ."""
        entries = [teacher(section, cls.modality) for section in config.of.values() if section is not None]
        tables = [table for entry, settings in entries if (table := entry.class_table(settings)) is not None]
        if cls.modality == "det":
            return box_table(list(dict.fromkeys(name for table in tables for name in table.names)))
        if any(table.names != tables[0].names for table in tables):
            raise ValueError(
                f"The labelers of {cls.modality} by source have different classes. Give them the same `classes`, or leave the "
                "modality out for all sources but one (null)."
            )
        ignored = tuple(sorted({number for table in tables for number in table.ignored}))
        return tables[0].model_copy(update={"ignored": ignored}) if tables else None

    def origin(self) -> dict[str, Any]:
        """Return the origin of each labeler."""
        return {
            "kind": self.kind,
            "of": [{"name": f"{one.name} for {source}", **one.origin()} for source, one in self.labelers.items()],
        }

    def label(self, batch: Batch, output: Any = None) -> list[Any]:
        """Return a label of each image, `Missing` for those of a source without a labeler.

        Raises:
            ValueError: a source is not named.
        """
        found: list[Any] = [None] * len(batch["__key__"])
        sources = list(batch[SOURCE])
        for source in dict.fromkeys(sources):
            rows = [row for row, name in enumerate(sources) if name == source]
            for row, value in zip(rows, self._labels(source, batch, rows), strict=True):
                found[row] = value.value if isinstance(value, Rated) else value
        return found

    def _labels(self, source: str, batch: Batch, rows: list[int]) -> list[Any]:
        if source not in self.config.of:
            raise ValueError(
                unknown_name(f"source in the labelers of {self.modality}:", source, self.config.of, "Add it, or `null`.")
            )
        if source not in self.labelers:
            return [Missing(f"{FILTERED}source {source} has no labeler")] * len(rows)
        own = {
            name: values[rows] if isinstance(values, np.ndarray) else [values[r] for r in rows]
            for name, values in batch.items()
        }
        return self.labelers[source].label(own)


LABELERS_BY_SOURCE: tuple[type[BySource], ...] = tuple(
    type(
        f"BySource_{name}",
        (BySource,),
        {"name": f"by_source_{name}", "title": "A labeler for each source", "modality": name, "__doc__": f"Labels `{name}`."},
    )
    for name in MODALITIES
)
