"""How each target is generated; presets by name."""

import difflib
from typing import Literal

from pydantic import Field

from fourfold.configuration import Config
from fourfold.generation.schedules import ScheduleName, TemperatureName


class TargetConfig(Config):
    """How one modality is generated. `order`, `steps` and `schedule` concern grids only; sequences go token by token."""

    order: Literal["roar", "maskgit"] = "roar"  # random places, or the most confident ones first
    steps: int = Field(default=1, ge=1)
    schedule: ScheduleName = "linear"
    temperature: float = Field(default=0.0, ge=0)  # 0: the most probable token
    temperature_schedule: TemperatureName = "constant"
    top_k: int = Field(default=0, ge=0)  # 0: all
    top_p: float = Field(default=1.0, gt=0, le=1)
    max_tokens: int | None = Field(default=None, ge=1)  # of a sequence; None: as many as the model has positions
    guidance: float = Field(default=1.0, ge=0)  # u + guidance · (c − u); 1: none (classifier-free guidance)


class GenerationConfig(Config):
    """How a request is answered."""

    grids: TargetConfig = TargetConfig()
    sequences: TargetConfig = TargetConfig()
    special: dict[str, TargetConfig] = Field(default_factory=dict)  # by modality, instead of the two above
    chain: bool = False  # a finished target becomes a condition of the next
    # A text that is asked for, or emptied by guidance, is shown as its first sentinel (as the reference does), not as nothing.
    show_sentinel: bool = False

    def of(self, name: str, kind: str) -> TargetConfig:
        """Return how a modality is generated."""
        return self.special.get(name, self.sequences if kind == "sequence" else self.grids)


# The settings of 4M-7's released presets (4m-facts §6), and the deterministic default.
PRESETS: dict[str, GenerationConfig] = {
    "greedy": GenerationConfig(),
    "dense": GenerationConfig(
        grids=TargetConfig(temperature=0.01, top_p=0.8, guidance=2.0), sequences=TargetConfig(temperature=0.3)
    ),
    "creative": GenerationConfig(
        grids=TargetConfig(steps=25, temperature=6.0, temperature_schedule="linear", guidance=3.0),
        sequences=TargetConfig(temperature=0.7),
        chain=True,
    ),
}


def preset(name: str) -> GenerationConfig:
    """Return a preset; raises ValueError that suggests the nearest name."""
    if name not in PRESETS:
        close = difflib.get_close_matches(name, PRESETS, n=1)
        hint = f" Did you mean {close[0]!r}?" if close else ""
        raise ValueError(f"Unknown preset {name!r}.{hint} Known: {', '.join(PRESETS)}.")
    return PRESETS[name]
