"""Settings of a public benchmark that is learned: its folder, and how it is scored."""

from pathlib import Path
from typing import Literal

from pydantic import Field, PositiveInt, field_validator

from fourfold.configuration import Config

BENCHMARK = "benchmark"  # the source of these tasks, as `TransferTask.truth`


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

    # What is drawn of an image each time that it is learned, for all arms
    random_crop: tuple[float, float] | None = None  # a part with a share of the area between these, e.g. [0.08, 1]; None: off
    mirror: bool = False  # half of the images; not for questions about left and right

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
