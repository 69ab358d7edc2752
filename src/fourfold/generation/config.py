"""How each target is generated; presets by name."""

from collections.abc import Sequence
from typing import Literal

from pydantic import Field

from fourfold.configuration import Config
from fourfold.generation.schedules import ScheduleName, TemperatureName
from fourfold.suggestions import unknown_name


class TargetConfig(Config):
    """How one modality is generated. `order`, `steps` and `schedule` concern grids only; sequences go token by token."""

    order: Literal["roar", "maskgit"] = "roar"  # random places, or the most confident ones first
    steps: int = Field(default=1, ge=1)
    schedule: ScheduleName = "linear"
    temperature: float = Field(default=0.0, ge=0)  # 0: the most probable token
    temperature_schedule: TemperatureName = "constant"
    final_temperature: float = Field(default=0.0, ge=0)  # of the schedule onex
    temperature_power: float = Field(default=0.5, gt=0)  # of the schedule onex
    top_k: int = Field(default=0, ge=0)  # 0: all
    top_p: float = Field(default=1.0, gt=0, le=1)
    max_tokens: int | None = Field(default=None, ge=1)  # of a sequence; None: as many as the model has positions
    guidance: float = Field(default=1.0, ge=0)  # u + guidance · (c − u); 1: none (classifier-free guidance)


class GenerationConfig(Config):
    """How a request is answered. Modalities are named as in `fourfold/modalities.py`; `tok_rgb` means `tok_rgb@224` too."""

    grids: TargetConfig = TargetConfig()
    sequences: TargetConfig = TargetConfig()
    special: dict[str, TargetConfig] = Field(default_factory=dict)  # by modality, instead of the two above
    chain: bool = False  # a finished target becomes a condition of the next
    via: dict[str, tuple[str, ...]] = Field(default_factory=dict)  # what is made first, and a condition then, by target
    # A text that is asked for, or emptied by guidance, is shown as its first sentinel (as the reference does), not as nothing.
    show_sentinel: bool = False

    def of(self, name: str, kind: str) -> TargetConfig:
        """Return how a modality is generated."""
        general = self.sequences if kind == "sequence" else self.grids
        return self.special.get(name, self.special.get(base_name(name), general))

    def via_of(self, name: str, known: Sequence[str]) -> list[str]:
        """Return what is made before a target, by the names of a model that knows the modalities `known`."""
        return [find_modality(step, known) for step in self.via.get(name, self.via.get(base_name(name), ()))]


def base_name(name: str) -> str:
    """Return a modality's name without a resolution: `tok_rgb` of `tok_rgb@448`."""
    return name.partition("@")[0]


def find_modality(name: str, known: Sequence[str]) -> str:
    """Return the modality that a model calls `name`, or `name@…`, the smallest resolution first; `name` if there is none."""
    sizes = {other: other.partition("@")[2] for other in known if base_name(other) == name}
    return name if name in known else min(sizes, key=lambda other: (len(sizes[other]), other), default=name)


# How 4M-7 makes images of captions, well guided: CLIP tokens hot at first and cold at the end, then RGB tokens cold.
_HOT = TargetConfig(steps=49, temperature=6.0, temperature_schedule="onex", final_temperature=0.5, top_p=0.9, guidance=3.0)
_COLD = TargetConfig(steps=25, temperature=0.5, top_p=0.9, guidance=3.0)
_DENSE = TargetConfig(temperature=0.01, top_p=0.8, guidance=2.0)
_CAPTION, _DET = TargetConfig(temperature=0.3), TargetConfig(temperature=0.5)

# The deterministic default, and 4M-7's settings by what is made (4m-facts §6; boxes: the middle of 0.3–0.7).
PRESETS: dict[str, GenerationConfig] = {
    "greedy": GenerationConfig(),
    "dense": GenerationConfig(grids=_DENSE, sequences=_CAPTION, special={"det": _DET}),
    "caption": GenerationConfig(grids=_DENSE, sequences=_CAPTION),
    "det": GenerationConfig(grids=_DENSE, sequences=_DET),
    # caption → CLIP tokens → RGB: what the picture shows is settled before how it looks
    "caption_to_rgb": GenerationConfig(
        grids=_COLD, sequences=_CAPTION, special={"tok_clip": _HOT}, via={"tok_rgb": ("tok_clip",)}
    ),
    # 224 → 448 px: every modality that is known at the lower resolution is a condition
    "super_resolution": GenerationConfig(
        grids=TargetConfig(order="maskgit", steps=8, schedule="cosine", temperature=1.0, top_p=0.9, guidance=3.0), chain=True
    ),
}


def find_preset(name: str) -> GenerationConfig:
    """Return a preset; raises ValueError that suggests the nearest name."""
    if name not in PRESETS:
        raise ValueError(unknown_name("preset", name, PRESETS))
    return PRESETS[name]
