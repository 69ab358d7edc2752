"""Settings of the transfer comparison: which tasks, how many labels, how long."""

from typing import Literal, Self

from pydantic import Field, PositiveInt, field_validator, model_validator

from fourfold.configuration import Config
from fourfold.training.optimizers import OptimizerConfig
from fourfold.training.precision import Precision
from fourfold.transfer.tasks import TRANSFER_TASKS

Arm = Literal["pretrained", "scratch", "baseline"]
ARMS: tuple[Arm, ...] = ("pretrained", "scratch", "baseline")
LR_MULTIPLIERS: dict[Arm, tuple[float, ...]] = {
    "pretrained": (0.3, 0.8),
    "scratch": (0.5, 1.0),
    "baseline": (1.0, 3.0),
}


class TransferConfig(Config):
    """What is learned, from how many labels, and for how long."""

    tasks: tuple[str, ...] = ()  # names of registered transfer tasks; (): all of them
    num_labels: tuple[int, ...] = Field((200, 500), min_length=1)  # one label per image
    num_seeds: int = Field(3, ge=1, le=20)
    steps: PositiveInt | dict[str, PositiveInt] = 90  # one number for all tasks, or one by task
    batch_size: int = Field(16, ge=1)
    warmup_share: float = Field(0.1, ge=0, lt=1)  # of the steps; half a cosine down to zero follows
    lr_multipliers: dict[Arm, tuple[float, ...]] = Field(
        default_factory=lambda: dict(LR_MULTIPLIERS)
    )  # of the learning rates of `optimizer`; the best one on transfer_val is used
    optimizer: OptimizerConfig = OptimizerConfig(muon_weight_decay=0.1)
    max_tokens: int = Field(48, ge=4)  # of a generated answer
    num_selection: int = Field(200, ge=10)  # examples of transfer_val
    num_test: int = Field(600, ge=10)
    precision: Precision = "auto"

    @field_validator("tasks")
    @classmethod
    def _known(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        for name in value:
            TRANSFER_TASKS.get(name)  # raises ValueError for an unknown name
        return value

    @model_validator(mode="after")
    def _each_task_has_steps(self) -> Self:
        if isinstance(self.steps, dict) and (missing := [name for name in self.task_names if name not in self.steps]):
            raise ValueError(
                f"finetuning.steps has no number for {', '.join(missing)}. Name every task, or give one number for all."
            )
        return self

    @property
    def task_names(self) -> tuple[str, ...]:
        """Names of the tasks that are learned."""
        return self.tasks or tuple(TRANSFER_TASKS)

    def num_steps(self, task: str) -> int:
        """Return how many steps every arm of a task takes."""
        return self.steps[task] if isinstance(self.steps, dict) else self.steps
