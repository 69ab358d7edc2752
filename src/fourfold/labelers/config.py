"""Settings of the labeling stage: which labelers run, and the settings of each under its name."""

from collections.abc import Callable, Mapping
from typing import Annotated, Any, Literal

from pydantic import Field, SerializeAsAny, ValidationError, field_validator, model_validator

from fourfold.configuration import Config
from fourfold.labelers.kinds import expanded
from fourfold.labelers.protocol import Labeler, Teacher
from fourfold.labelers.registry import LABELERS, known_teacher
from fourfold.modalities.camera import Camera
from fourfold.modalities.class_table import ClassTable


class IntegrationConfig(Config):
    """Limits for the labels of all labelers together."""

    min_score: float = Field(0.3, ge=0, le=1)  # boxes with a lower score are dropped
    min_class_overlap: float = Field(0.15, ge=0, le=1)  # share of a box's pixels that the segmentation must give to its class
    max_normal_angle: float = Field(60.0, gt=0, le=180)  # degrees, mean of an image, between normals and those of its depth
    max_depth: float = Field(1000.0, gt=0)  # meters
    # Labels that are left out of later stages although they are possible; data/02_labels/labels.html shows how many
    disagreeing_normals: Literal["keep", "drop"] = "keep"  # those beyond max_normal_angle
    min_confidence: dict[str, Annotated[float, Field(ge=0, le=1)]] = Field(default={})  # by modality, of `rated` labelers


class LabelingConfig(Config):
    """Which labeler produces which modality, and how teachers are trained, images labeled and labels integrated.

    `settings` and `teachers` hold a section for each labeler or teacher that does not use its defaults. A section is
    validated by the class that the labeler or teacher declares, so a plug-in brings its own settings.
    """

    labelers: dict[str, str] = Field(min_length=1)  # modality → name in the registry, or {kind: ..., settings}; null: none
    settings: dict[str, SerializeAsAny[Config]] = Field(default_factory=dict)  # by labeler
    teachers: dict[str, SerializeAsAny[Config]] = Field(default_factory=dict)  # by teacher
    camera: Camera = Camera()  # assumed for all images
    annotated_split: str = "annotated"  # has exact truth; teachers are trained on it and it is not labeled
    caption_splits: tuple[str, ...] = ("annotated", "train")  # whose images and captions teachers may be trained on
    measured_splits: tuple[str, ...] = Field(("val", "transfer_val"), min_length=1)  # the first one with truth is measured
    batch_size: int = Field(125, ge=1)  # images that are labeled at once
    max_missing_share: float = Field(0.05, ge=0, le=1)  # of the labels of a modality that may fail; more is an error
    integration: IntegrationConfig = IntegrationConfig()
    # Which labels of `train` are stored. The others are computed again, shard by shard, when they are tokenized.
    keep: Literal["all", "sample", "none"] = "all"
    sample_size: int = Field(20_000, ge=1)  # images of `train` whose labels `keep: sample` stores, rounded up to whole shards

    @model_validator(mode="before")
    @classmethod
    def _expand_kinds(cls, values: Any) -> Any:
        return expanded(values) if isinstance(values, Mapping) else values

    @field_validator("labelers")
    @classmethod
    def _check_modalities(cls, value: dict[str, str]) -> dict[str, str]:
        for modality, name in value.items():
            entry = LABELERS.get(name)
            if entry.modality != modality:
                raise ValueError(
                    f"Labeler {name!r} produces {entry.modality!r}, not {modality!r}. Move it there, or choose another one."
                )
        return value

    @model_validator(mode="after")
    def _confidences_exist(self) -> "LabelingConfig":
        rated = sorted(modality for modality, entry in self.labeler_classes().items() if entry.rated)
        for modality in sorted(self.integration.min_confidence.keys() - set(rated)):
            raise ValueError(
                f"integration.min_confidence names {modality!r}, whose labels have no confidence; those that have one: "
                f"{', '.join(rated) or 'none'}. Remove it, or choose a labeler with a confidence, e.g. a fusion."
            )
        return self

    @field_validator("settings", mode="before")
    @classmethod
    def _parse_settings(cls, value: Any) -> Any:
        return _parsed(value, lambda name: LABELERS.get(name).config_class)

    @field_validator("teachers", mode="before")
    @classmethod
    def _parse_teachers(cls, value: Any) -> Any:
        return _parsed(value, lambda name: known_teacher(name).config_class)

    @model_validator(mode="after")
    def _labelers_have_settings(self) -> "LabelingConfig":
        for entry in self.labeler_classes().values():
            try:
                self.settings_of(entry)
            except ValidationError as error:
                missing = ", ".join(".".join(map(str, found["loc"])) for found in error.errors())
                raise ValueError(f"Labeler {entry.name!r} needs settings: {missing}. Add them to its section.") from error
        return self

    def labeler_classes(self) -> dict[str, type[Labeler]]:
        """Return the configured labelers by modality."""
        return {modality: LABELERS.get(name) for modality, name in self.labelers.items()}

    def required_teachers(self) -> dict[str, Teacher]:
        """Return the teachers of the configured labelers, each once, sorted by name."""
        teachers = {entry.teacher.name: entry.teacher for entry in self.labeler_classes().values() if entry.teacher}
        return dict(sorted(teachers.items()))

    def settings_of(self, labeler_class: type[Labeler]) -> Any:
        """Return the settings of a labeler, an instance of its `config_class`."""
        return self.settings.get(labeler_class.name) or labeler_class.config_class()

    def settings_of_teacher(self, teacher: Teacher) -> Any:
        """Return the settings of a teacher, an instance of its `config_class`."""
        return self.teachers.get(teacher.name) or teacher.config_class()

    def class_tables(self) -> dict[str, ClassTable]:
        """Return the class tables of the configured labelers by modality."""
        tables = {name: entry.class_table(self.settings_of(entry)) for name, entry in self.labeler_classes().items()}
        return {modality: table for modality, table in tables.items() if table is not None}


def _parsed(sections: Any, config_class_of: Callable[[str], type[Config]]) -> Any:
    """Return each section as an instance of its class; what is not a mapping is left to the field's own validation."""
    if not isinstance(sections, Mapping):
        return sections
    parsed = {}
    for name, section in sections.items():
        config_class = config_class_of(name)
        try:
            parsed[name] = config_class.model_validate(section)
        except ValidationError as error:
            # Nested errors would lose their place: name the key of each
            problems = [".".join(map(str, (name, *found["loc"]))) + f": {found['msg']}" for found in error.errors()]
            raise ValueError("; ".join(problems)) from error
    return parsed
