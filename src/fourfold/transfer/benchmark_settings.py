"""Settings of a public benchmark that is learned: its folder, and how it is scored."""

from pathlib import Path
from typing import Literal, Self

from pydantic import Field, PositiveInt, field_validator, model_validator

from fourfold.configuration import Config

BENCHMARK = "benchmark"  # the source of these tasks, as `TransferTask.truth`
MAX_MAGNITUDE = 10  # of RandAugment, as timm counts
MAX_SCALE = 4  # of large-scale jitter: the resized image has at most 16 times the pixels of the model's


class RandAugmentConfig(Config):
    """RandAugment (Cubuk et al. 2019, arXiv 1909.13719) as timm defines it: the defaults are its `rand-m9-mstd0.5-inc1`.

    `operations`, `magnitude` and `magnitude_std` are its n, m and mstd.
    """

    operations: int = Field(2, ge=1, le=15)  # that are drawn for each image, with replacement
    magnitude: float = Field(9.0, ge=0, le=MAX_MAGNITUDE)  # 10: e.g. up to 30 degrees, 45 % of the width, or inverted levels
    magnitude_std: float = Field(0.5, ge=0, le=MAX_MAGNITUDE)  # of normal noise that each operation adds to its magnitude
    probability: float = Field(0.5, gt=0, le=1)  # that a drawn operation is applied


class ColorJitterConfig(Config):
    """Random colors: the defaults are those of MultiMAE's public code (Bachmann et al. 2022, arXiv 2204.01678) for ADE20K.

    4M-21 (arXiv 2406.09406, appendix) names color jitter for ADE20K and NYUv2 without strengths.
    """

    # Factors are uniform in 1 - value to 1 + value; 0 turns an operation off
    brightness: float = Field(0.4, ge=0, le=1)
    contrast: float = Field(0.4, ge=0, le=1)
    saturation: float = Field(0.2, ge=0, le=1)
    hue: float = Field(0.1, ge=0, le=0.5)  # the shift is uniform in -value to value; 1 is once around the color circle
    probability: float = Field(0.5, gt=0, le=1)  # that these four are applied, in a random order
    gray: float = Field(0.0, ge=0, le=1)  # probability that the image loses its colors afterwards, also without these four


class TrainedBenchmarkConfig(Config):
    """A public benchmark in a local folder, in its official layout, whose training split is learned."""

    path: Path
    split: str | None = None  # that is scored; default: the benchmark's
    max_samples: int | None = Field(None, ge=2)  # of that split; default: all; with fewer, the number is not the official one
    held_out: int = Field(1000, ge=0)  # examples of the training split that choose learning rates and are not learned
    # VQAv2, GQA: questions of the training split that an answer must have to be one that the model can give; None: 9, and 1 for
    # a benchmark with one answer for each question
    min_questions: PositiveInt | None = None
    batch_size: int = Field(16, ge=1)  # images that are predicted at once
    # What is learned of depth: meters or their logarithm. An error of 1 m counts the same everywhere, or one of 10 % does
    depth_scale: Literal["linear", "log"] = "linear"

    # What is drawn of an image each time that it is learned, for all arms
    random_crop: tuple[float, float] | None = None  # a part with a share of the area between these, e.g. [0.08, 1]; None: off
    # Large-scale jitter instead: the longer side, as a factor of the model's side, e.g. [0.1, 2]; gray and ignored outside.
    # The ratio of the sides is that of the image, and with the view `squash` that of a square
    scale_jitter: tuple[float, float] | None = None
    mirror: bool = False  # half of the images; not for questions about left and right
    color_jitter: ColorJitterConfig | None = None  # of the whole image, before a part is taken; labels stay as they are
    rand_augment: RandAugmentConfig | None = None  # after all others; moves and recolors, so not for maps and boxes

    # None: what the benchmark prescribes; see fourfold.evaluation.benchmarks.views
    view: Literal["squash", "crop", "windows"] | None = None
    overlap: float = Field(0.5, ge=0, lt=1)  # of windows
    flip: bool = False  # average with the answer to the mirrored image

    @field_validator("random_crop")
    @classmethod
    def _are_shares(cls, value: tuple[float, float] | None) -> tuple[float, float] | None:
        if value is not None and not 0 < value[0] <= value[1] <= 1:
            raise ValueError(f"random_crop is {list(value)}; allowed: two shares of the area, 0 < first ≤ second ≤ 1.")
        return value

    @field_validator("scale_jitter")
    @classmethod
    def _are_factors(cls, value: tuple[float, float] | None) -> tuple[float, float] | None:
        if value is not None and not 0 < value[0] <= value[1] <= MAX_SCALE:
            raise ValueError(
                f"scale_jitter is {list(value)}; allowed: two factors of the side of the model's images, "
                f"0 < first ≤ second ≤ {MAX_SCALE}, e.g. [0.1, 2.0]."
            )
        return value

    @model_validator(mode="after")
    def _one_way_to_crop(self) -> Self:
        if self.random_crop is not None and self.scale_jitter is not None:
            raise ValueError(
                f"random_crop is {list(self.random_crop)} and scale_jitter {list(self.scale_jitter)}; both choose which part "
                "of an image is seen. Remove one of them."
            )
        return self
