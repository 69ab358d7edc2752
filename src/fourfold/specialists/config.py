"""Settings of the comparison with specialists."""

from collections.abc import Mapping
from typing import Any

from pydantic import Field, SerializeAsAny, ValidationError, ValidationInfo, field_validator

from fourfold.configuration import Config
from fourfold.specialists.protocol import Specialist, SpecialistConfig
from fourfold.specialists.registry import SPECIALISTS


class SpecialistsConfig(Config):
    """Which specialists are trained, how, and how their cost is measured."""

    models: tuple[str, ...] = ("unet_depth", "unet_segmentation", "faster_rcnn", "fcos")  # names of registered specialists
    # The same for tasks that the generalist is fine-tuned on, each on its own; none: the generalist as it is
    finetuned: tuple[str, ...] = ("finetuned_depth", "finetuned_segmentation", "finetuned_boxes")
    # By specialist, settings that differ from its defaults
    settings: dict[str, SerializeAsAny[SpecialistConfig]] = Field(default_factory=dict)
    num_seeds: int = Field(1, ge=1, le=20)  # trainings of each specialist, with different seeds
    max_samples: int = Field(20_000, ge=1)  # training images in memory; of more, the first ones
    latency_rounds: int = Field(15, ge=1)  # predictions of one image of which the median time counts
    gallery_samples: int = Field(5, ge=1, le=50)

    @field_validator("models", "finetuned")
    @classmethod
    def _known(cls, value: tuple[str, ...], info: ValidationInfo) -> tuple[str, ...]:
        key = f"specialists.{info.field_name}"
        for name in value:
            # `get` raises ValueError for an unknown name
            if SPECIALISTS.get(name).is_finetuned != (info.field_name == "finetuned"):
                other = "models" if info.field_name == "finetuned" else "finetuned"
                raise ValueError(f"{key} has {name!r}, which belongs into specialists.{other}. Move it there.")
        if len(set(value)) < len(value):
            raise ValueError(f"{key} is {list(value)}; each specialist can be there once. Remove the repetition.")
        if not value and info.field_name == "models":
            raise ValueError(f"{key} is empty; allowed: one or more different specialists.")
        return value

    @field_validator("settings", mode="before")
    @classmethod
    def _parse_settings(cls, value: Any) -> Any:
        if not isinstance(value, Mapping):
            return value
        return {name: _parsed(name, section) for name, section in value.items()}

    def chosen(self) -> list[Specialist]:
        """Return the specialists that are trained, in the order of `models`, and then the fine-tuned ones."""
        return [SPECIALISTS.get(name) for name in (*self.models, *self.finetuned)]

    def settings_of(self, specialist: Specialist) -> Any:
        """Return the settings of a specialist, an instance of its `config_class`."""
        return self.settings.get(specialist.name) or specialist.config_class()


def _parsed(name: str, section: Any) -> SpecialistConfig:
    try:
        return SPECIALISTS.get(name).config_class.model_validate(section)
    except ValidationError as error:
        # nested errors would lose their place: name the key of each
        problems = [".".join(map(str, ("specialists.settings", name, *e["loc"]))) + f": {e['msg']}" for e in error.errors()]
        raise ValueError("; ".join(problems)) from error
