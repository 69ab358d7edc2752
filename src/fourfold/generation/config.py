"""Settings of generation: how each target is generated, and presets by name."""

from collections.abc import Sequence
from typing import Literal

from pydantic import Field

from fourfold.configuration import Config
from fourfold.suggestions import unknown_name

ScheduleName = Literal["cosine", "linear"]  # of `grids.token_schedule`
TemperatureName = Literal["constant", "linear", "onex"]  # of `grids.temperatures`


class TargetConfig(Config):
    """How one modality is generated. `order`, `steps` and the schedules apply to grids; sequences have no steps."""

    order: Literal["roar", "maskgit"] = "roar"  # roar: random positions; maskgit: the most confident tokens first
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
    """How all targets of a request are generated. Settings of `tok_rgb` also apply to `tok_rgb@224`."""

    grids: TargetConfig = TargetConfig()
    sequences: TargetConfig = TargetConfig()
    special: dict[str, TargetConfig] = Field(default_factory=dict)  # by modality, instead of `grids` or `sequences`
    chain: bool = False  # each finished target becomes a condition of the next ones
    # Predict all grids that take one step without guidance in one pass of the decoder: the same tokens with fewer calls. It
    # applies where no target becomes a condition of another one, and targets of different modalities do not see each other.
    together: bool = False
    via: dict[str, tuple[str, ...]] = Field(default_factory=dict)  # target → what is generated first, as its condition
    # Show a text that is a target, or emptied by guidance, as its first sentinel (as in the reference) instead of
    # omitting it.
    show_sentinel: bool = False

    def of(self, name: str, kind: str) -> TargetConfig:
        """Return the settings of one modality."""
        general = self.sequences if kind == "sequence" else self.grids
        return self.special.get(name, self.special.get(base_name(name), general))

    def via_of(self, name: str, known: Sequence[str]) -> list[str]:
        """Return what is generated before a target, by the names of a model with the modalities `known`."""
        return [find_modality(step, known) for step in self.via.get(name, self.via.get(base_name(name), ()))]


def base_name(name: str) -> str:
    """Return the name of a modality without its resolution: `tok_rgb` for `tok_rgb@448`."""
    return name.partition("@")[0]


def find_modality(name: str, known: Sequence[str]) -> str:
    """Return the modality `name` of a model, or `name@…` at the lowest resolution; `name` if the model has neither."""
    sizes = {other: other.partition("@")[2] for other in known if base_name(other) == name}
    return name if name in known else min(sizes, key=lambda other: (len(sizes[other]), other), default=name)


# 4M's settings for images from captions (arXiv 2312.06647 §A.4): strong guidance, CLIP tokens at a temperature that
# falls from high to low, then RGB tokens at a low temperature.
_HOT = TargetConfig(steps=49, temperature=6.0, temperature_schedule="onex", final_temperature=0.5, top_p=0.9, guidance=3.0)
_COLD = TargetConfig(steps=25, temperature=0.5, top_p=0.9, guidance=3.0)
_DENSE = TargetConfig(temperature=0.01, top_p=0.8, guidance=2.0)
_CAPTION, _DET = TargetConfig(temperature=0.3), TargetConfig(temperature=0.5)
# The defaults of the reference's sampler: top-p 0.8 for all, and finished targets become conditions.
_TEXT = TargetConfig(temperature=0.3, top_p=0.8)
_OTHER_TEXTS = {
    "human_poses": TargetConfig(temperature=0.1, top_p=0.8),
    "sam_instance": TargetConfig(temperature=0.01, top_p=0.8),
    "color_palette": TargetConfig(temperature=0.1, top_p=0.8),
    "metadata": TargetConfig(temperature=0.1, top_p=0.8),
}
_FALLING = TargetConfig(steps=8, temperature=3.0, temperature_schedule="onex", final_temperature=0.5, top_p=0.8, guidance=2.0)
_FEATURES = TargetConfig(steps=8, temperature=0.01, top_p=0.8, guidance=2.0)
_FROM_OTHERS = {
    "tok_clip": _FALLING.model_copy(update={"steps": 50, "temperature": 5.0, "guidance": 3.0}),
    "tok_dinov2": _FEATURES,
    "tok_imagebind": _FEATURES,
    "tok_rgb": _FALLING.model_copy(update={"steps": 25}),
}

# The deterministic default, 4M's settings by target (for boxes, the middle of its range 0.3 to 0.7), and the defaults of
# the reference's sampler under its names. All but the default show an empty text as its first sentinel, as 4M does.
PRESETS: dict[str, GenerationConfig] = {
    "greedy": GenerationConfig(),
    "one_pass": GenerationConfig(together=True),  # greedy, the grids of all targets at once
    "dense": GenerationConfig(grids=_DENSE, sequences=_CAPTION, special={"det": _DET}, show_sentinel=True),
    "caption": GenerationConfig(grids=_DENSE, sequences=_CAPTION, show_sentinel=True),
    "det": GenerationConfig(grids=_DENSE, sequences=_DET, show_sentinel=True),
    # caption → CLIP tokens → RGB: settle the content before the appearance
    "caption_to_rgb": GenerationConfig(
        grids=_COLD, sequences=_CAPTION, special={"tok_clip": _HOT}, via={"tok_rgb": ("tok_clip",)}, show_sentinel=True
    ),
    # 224 → 448 pixels: every modality known at the lower resolution is a condition
    "super_resolution": GenerationConfig(
        grids=TargetConfig(order="maskgit", steps=8, schedule="cosine", temperature=1.0, top_p=0.9, guidance=3.0),
        chain=True,
        show_sentinel=True,
    ),
    "rgb2x": GenerationConfig(grids=_DENSE, sequences=_TEXT, special=_OTHER_TEXTS, chain=True, show_sentinel=True),
    "x2rgb": GenerationConfig(
        grids=_FALLING, sequences=_TEXT, special=_OTHER_TEXTS | _FROM_OTHERS, chain=True, show_sentinel=True
    ),
    "sr": GenerationConfig(
        grids=TargetConfig(order="maskgit", steps=8, schedule="cosine", temperature=1.0, top_p=0.8, guidance=2.0),
        sequences=_TEXT,
        chain=True,
        show_sentinel=True,
    ),
}


def find_preset(name: str) -> GenerationConfig:
    """Return a preset; raises ValueError that suggests the nearest name."""
    if name not in PRESETS:
        raise ValueError(unknown_name("preset", name, PRESETS))
    return PRESETS[name]
