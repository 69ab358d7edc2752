"""Settings of evaluation."""

from pathlib import Path

from pydantic import Field, field_validator

from fourfold.configuration import Config
from fourfold.evaluation.tasks import PREDICTION_TASKS, ScoringConfig
from fourfold.generation.config import GenerationConfig


class TaskGenerationConfig(Config):
    """How the prediction of one task is generated."""

    via: tuple[str, ...] = ()  # labels that are generated first; each is a condition of the next (4M, section 4)
    generation: GenerationConfig = GenerationConfig()  # one step, the most probable tokens


class BenchmarkConfig(Config):
    """A public benchmark in a local folder, in its official layout."""

    reader: str  # name in fourfold.evaluation.benchmarks.BENCHMARKS
    path: Path
    split: str | None = None  # default: the reader's
    max_samples: int = Field(1000, ge=2)


class EvaluationConfig(ScoringConfig):
    """How the tables are made."""

    max_samples: int = Field(1000, ge=2)  # of the split; bounds time and memory
    replicates: int = Field(1000, ge=10)  # of the bootstrap
    text_encoder: str | None = "mini_clip"  # name of a text encoder; None: tasks that need one are skipped
    gallery_samples: int = Field(6, ge=1, le=50)
    tasks: dict[str, TaskGenerationConfig] = Field(default_factory=dict)  # by pair, e.g. "caption->rgb"
    benchmarks: dict[str, BenchmarkConfig] = Field(default_factory=dict)  # by a name of your choice

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
