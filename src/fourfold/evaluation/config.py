"""Settings of evaluation."""

from pathlib import Path
from typing import Literal

from pydantic import Field, field_validator

from fourfold.configuration import Config
from fourfold.evaluation.tasks import PREDICTION_TASKS, ScoringConfig
from fourfold.generation.config import GenerationConfig, find_preset


class TaskGenerationConfig(Config):
    """How the prediction of one task is generated."""

    via: tuple[str, ...] = ()  # labels that are generated first; each is a condition of the next (4M, section 4)
    generation: GenerationConfig = GenerationConfig()  # one step, the most probable tokens


class BenchmarkConfig(Config):
    """A public benchmark in a local folder, in its official layout."""

    reader: str  # name in fourfold.evaluation.benchmarks.BENCHMARKS
    path: Path
    split: str | None = None  # default: the reader's
    max_samples: int | None = Field(None, ge=2)  # default: all of an official benchmark, 1,000 of one that is held in memory

    # Of official benchmarks. None: what the benchmark prescribes.
    view: Literal["squash", "crop", "windows"] | None = None  # see fourfold.evaluation.benchmarks.views
    scales: tuple[float, ...] = Field((1.0,), min_length=1)  # of windows, as shares of the shorter side of the image
    overlap: float = Field(0.5, ge=0, lt=1)  # of windows
    flip: bool = False  # average with the answer to the mirrored image
    crop: Literal["none", "eigen_nyu", "eigen_kitti", "garg"] | None = None  # of depth
    alignment: Literal["none", "median", "scale_and_shift", "inverse_scale_and_shift"] | None = None  # of depth, to the truth
    max_depth: float | None = Field(None, gt=0)  # meters
    normal_signs: tuple[int, int, int] = (1, 1, 1)  # turn the axes of the true normals to x right, y down, z into the scene
    class_names: dict[str, str] = Field(default_factory=dict)  # of the model → of the benchmark, where they differ
    caption_ids: Path | None = None  # of generated images: text file of ids of captions; None: see `sets/drawn_captions.py`
    preset: str = "greedy"  # of generated images: a name of `PRESETS` (fourfold.generation.config)
    fid_weights: Path | None = None  # of generated images: file of FID's Inception network; None: FID is left out
    batch_size: int = Field(16, ge=1)  # images that are predicted at once

    @field_validator("scales")
    @classmethod
    def _are_shares(cls, value: tuple[float, ...]) -> tuple[float, ...]:
        if wrong := [scale for scale in value if not 0.1 <= scale <= 1]:
            raise ValueError(f"scales has {wrong[0]}; allowed: 0.1 to 1, e.g. [1.0, 0.5].")
        return value

    @field_validator("preset")
    @classmethod
    def _is_preset(cls, value: str) -> str:
        find_preset(value)
        return value


class EvaluationConfig(ScoringConfig):
    """How the tables are made."""

    max_samples: int = Field(1000, ge=2)  # of the split; bounds time and memory
    replicates: int = Field(1000, ge=10)  # of the bootstrap
    text_encoder: str | None = "mini_clip"  # name of a text encoder; None: tasks that need one are skipped
    gallery_samples: int = Field(6, ge=1, le=50)
    tasks: dict[str, TaskGenerationConfig] = Field(default_factory=dict)  # by pair, e.g. "caption->rgb"
    # Shown above everything else in the report, the model card and `kedro demo`, and by `kedro generate`, e.g. that the numbers
    # mean nothing
    notice: str = ""
    benchmarks: dict[str, BenchmarkConfig] = Field(default_factory=dict)  # by a name of your choice
    model: str | None = None  # of `kedro run --pipelines=benchmarks`: a folder or models:/NAME@ALIAS; None: the catalog's

    @field_validator("tasks")
    @classmethod
    def _known(cls, value: dict[str, TaskGenerationConfig]) -> dict[str, TaskGenerationConfig]:
        pairs = sorted({task.pair for _, task in PREDICTION_TASKS.items()})
        if unknown := sorted(set(value) - set(pairs)):
            raise ValueError(f"evaluation.tasks has unknown names: {', '.join(unknown)}. Allowed: {', '.join(pairs)}.")
        return value

    def generation_of(self, pair: str) -> tuple[tuple[str, ...], GenerationConfig]:
        """Return the labels that are generated on the way to a pair's target, and how all of them are generated."""
        chosen = self.tasks.get(pair, TaskGenerationConfig())
        chain = bool(chosen.via) or chosen.generation.chain
        return chosen.via, chosen.generation.model_copy(update={"chain": chain})
