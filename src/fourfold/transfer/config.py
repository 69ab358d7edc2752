"""What is fine-tuned, from how many labels and for how long."""

from typing import Literal, Self

from pydantic import Field, PositiveInt, model_validator

from fourfold.configuration import Config
from fourfold.training.optimizers import OptimizerConfig
from fourfold.training.precision import Precision

Arm = Literal["pretrained", "scratch", "baseline"]
TaskName = Literal["vqa", "captioning", "attributes"]
ARMS: tuple[Arm, ...] = ("pretrained", "scratch", "baseline")
FACTORS: dict[Arm, tuple[float, ...]] = {
    "pretrained": (0.3, 0.8),
    "scratch": (0.5, 1.0),
    "baseline": (1.0, 3.0),
}  # of the rates


class TransferConfig(Config):
    """What is learned, from how many labels, and for how long."""

    tasks: tuple[TaskName, ...] = ("vqa", "captioning", "attributes")
    num_labels: tuple[int, ...] = Field((200, 500), min_length=1)  # one label an image
    num_seeds: int = Field(3, ge=1, le=20)
    steps: PositiveInt | dict[TaskName, PositiveInt] = 90  # of all tasks alike, or of each
    batch_size: int = Field(16, ge=1)
    warmup_share: float = Field(0.1, ge=0, lt=1)  # of the steps; then half a cosine down to zero
    factors: dict[Arm, tuple[float, ...]] = Field(default_factory=lambda: dict(FACTORS))  # the best on transfer_val is taken
    optimizer: OptimizerConfig = OptimizerConfig(muon_weight_decay=0.1)
    max_tokens: int = Field(48, ge=4)  # of a generated answer
    num_selection: int = Field(200, ge=10)  # examples of transfer_val
    num_test: int = Field(600, ge=10)
    precision: Precision = "auto"

    @model_validator(mode="after")
    def _each_task_has_steps(self) -> Self:
        if isinstance(self.steps, dict) and (missing := [name for name in self.tasks if name not in self.steps]):
            raise ValueError(f"`steps` has no number for {', '.join(missing)}. Name every task, or give one number for all.")
        return self

    def num_steps(self, name: TaskName) -> int:
        """Return how many steps every arm of a task takes."""
        return self.steps[name] if isinstance(self.steps, dict) else self.steps
