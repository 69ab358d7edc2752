"""Settings of the scenes. The defaults are the embedded data set: 64 × 64 pixels, learned in minutes on two cores."""

from typing import Literal

from pydantic import Field, field_validator, model_validator

from fourfold.data.ingestion.sources import SourceConfig
from fourfold.scenes.world.camera import SceneCamera

SPLITS = ("annotated", "train", "val", "test", "transfer_train", "transfer_val", "transfer_test")
DEFAULT_NUM_SAMPLES = {
    "annotated": 2000,
    "train": 8000,
    "val": 400,
    "test": 600,
    "transfer_train": 600,
    "transfer_val": 400,
    "transfer_test": 600,
}


class ScenesConfig(SourceConfig):
    """What is in the scenes, how they are seen and how many there are. Lengths in meters."""

    kind: Literal["scenes"] = "scenes"
    image_size: int = Field(default=64, ge=16, le=1024)  # pixels, square
    num_samples: dict[str, int] = Field(default_factory=lambda: dict(DEFAULT_NUM_SAMPLES))
    min_objects: int = Field(default=1, ge=1, le=4)
    max_objects: int = Field(default=3, ge=1, le=4)
    large: float = Field(default=0.85, gt=0.05, lt=2)  # radius of a large sphere; the other shapes follow
    small: float = Field(default=0.55, gt=0.05, lt=2)
    nearest: float = Field(default=3.2, gt=1)  # distance of object centers along the ground
    farthest: float = Field(default=5.2, gt=1)
    max_occlusion: float = Field(default=0.4, ge=0, lt=1)  # share of an object's width that nearer ones may cover
    far: float = Field(default=12.0, gt=1)  # depth at which the ground ends and the sky begins; also the depth of the sky
    images_per_shard: int = Field(default=250, ge=1)
    camera: SceneCamera = SceneCamera()

    @field_validator("num_samples")
    @classmethod
    def _known_splits(cls, value: dict[str, int]) -> dict[str, int]:
        for split, count in value.items():
            if split not in SPLITS or count < 0:
                raise ValueError(f"num_samples has {split!r}: {count}. Allowed: counts >= 0 for {', '.join(SPLITS)}.")
        return value

    @model_validator(mode="after")
    def _ordered_ranges(self) -> "ScenesConfig":
        for low, high in (("min_objects", "max_objects"), ("small", "large"), ("nearest", "farthest"), ("farthest", "far")):
            if getattr(self, low) > getattr(self, high):
                raise ValueError(f"{low} ({getattr(self, low)}) must not be above {high} ({getattr(self, high)}).")
        return self

    def fixed_image_size(self) -> int:
        """Return the side of the rendered images in pixels."""
        return self.image_size
