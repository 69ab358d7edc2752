"""Settings of the transfer comparison: which tasks, how many labels, how long."""

from typing import Annotated, Self

from pydantic import Field, PositiveInt, field_validator, model_validator

from fourfold.configuration import Config
from fourfold.data.annotations import ANNOTATIONS
from fourfold.suggestions import unknown_name
from fourfold.training.optimizers import OptimizerConfig
from fourfold.training.precision import Precision
from fourfold.transfer.benchmark_settings import BENCHMARK, TrainedBenchmarkConfig
from fourfold.transfer.head_sizes import HeadsConfig
from fourfold.transfer.labeled import LABELS, TRANSFER_TASKS
from fourfold.transfer.recipes import ArmConfig, Start

STARTS: tuple[Start, ...] = ("pretrained", "scratch", "baseline")
LR_MULTIPLIERS: dict[str, tuple[float, ...]] = {
    "pretrained": (0.3, 0.8),
    "scratch": (0.5, 1.0),
    "baseline": (1.0, 3.0),
}
ArmName = Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]*$", max_length=40)]  # also part of a file's name


def default_arms() -> dict[str, ArmConfig]:
    """Return the arms of the default comparison, named after their starts."""
    return {start: ArmConfig(start=start) for start in STARTS}


class TransferConfig(Config):
    """What is learned, from how many labels, and for how long."""

    tasks: tuple[str, ...] = ()  # names of registered tasks; (): those with texts or classes that learn from exact truth
    arms: dict[ArmName, ArmConfig] = Field(default_factory=default_arms, min_length=1)  # what is compared
    heads: HeadsConfig = HeadsConfig()  # of tasks that predict maps or boxes
    num_labels: tuple[int, ...] = Field((200, 500), min_length=1)  # one label per image
    balanced: bool = False  # few-shot: labels of a task with one attribute are drawn in turn from its classes
    num_seeds: int = Field(3, ge=1, le=20)
    steps: PositiveInt | dict[str, PositiveInt] = 90  # one number for all tasks, or one by task
    batch_size: int = Field(16, ge=1)
    warmup_share: float = Field(0.1, ge=0, lt=1)  # of the steps; half a cosine down to zero follows
    lr_multipliers: dict[str, Annotated[tuple[float, ...], Field(min_length=1)]] = Field(
        default_factory=lambda: dict(LR_MULTIPLIERS)
    )  # by arm, of the rates of `optimizer`; the best one on transfer_val is used; arms without: those of their start
    optimizer: OptimizerConfig = OptimizerConfig(muon_weight_decay=0.1)
    max_tokens: int = Field(48, ge=4)  # of a generated answer
    num_selection: int = Field(200, ge=10)  # examples of transfer_val
    num_test: int = Field(600, ge=10)
    precision: Precision = "auto"
    # Of tasks that learn a public benchmark (docs/benchmarks.md), by task: where its data are
    benchmarks: dict[str, TrainedBenchmarkConfig] = Field(default_factory=dict)

    @field_validator("tasks")
    @classmethod
    def _known(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        for name in value:
            task = TRANSFER_TASKS.get(name)  # raises ValueError for an unknown name
            if task.head is not None:
                task.head.require()
        return value

    @model_validator(mode="after")
    def _multipliers_have_an_arm(self) -> Self:
        for name in self.lr_multipliers:
            if name not in (*self.arms, *STARTS):
                raise ValueError(unknown_name("arm in lr_multipliers", name, self.arms))
        return self

    @model_validator(mode="after")
    def _each_task_has_steps(self) -> Self:
        if isinstance(self.steps, dict) and (missing := [name for name in self.task_names if name not in self.steps]):
            raise ValueError(
                f"finetuning.steps has no number for {', '.join(missing)}. Name every task, or give one number for all."
            )
        return self

    @model_validator(mode="after")
    def _each_benchmark_has_a_folder(self) -> Self:
        for name in self.tasks:
            if TRANSFER_TASKS.get(name).truth == BENCHMARK and name not in self.benchmarks:
                raise ValueError(
                    f"finetuning.tasks has {name!r}, a public benchmark, and finetuning.benchmarks does not name its folder. "
                    f"Add {name}: {{path: datasets/{name}}}."
                )
            chosen = [arm for arm in self.arms if len(self.lr_multipliers_of(arm)) > 1]
            if name in self.benchmarks and not self.benchmarks[name].held_out and chosen:
                raise ValueError(
                    f"finetuning.benchmarks.{name}.held_out is 0, so no examples choose the learning rate of arm {chosen[0]}. "
                    f"Give it one of lr_multipliers, e.g. {chosen[0]}: [1.0], or set held_out, e.g. 1000."
                )
        return self

    def check_data(self) -> None:
        """Raise ValueError if the data of a public benchmark are missing: a long pretraining would come before the error."""
        for name, task in ((name, TRANSFER_TASKS.get(name)) for name in self.task_names):
            if task.check is not None:
                task.check(self.benchmarks[name])

    @property
    def task_names(self) -> tuple[str, ...]:
        """Names of the tasks that are learned."""
        if self.tasks:
            return self.tasks
        others = (ANNOTATIONS, BENCHMARK)
        return tuple(n for n, task in TRANSFER_TASKS.items() if task.truth not in others and task.kind != "labels")

    @property
    def reads_transfer_splits(self) -> bool:
        """Whether a task learns from exact truth, of which `transfer_train` must have `num_labels` examples."""
        return any(TRANSFER_TASKS.get(name).truth not in (ANNOTATIONS, LABELS, BENCHMARK) for name in self.task_names)

    def lr_multipliers_of(self, arm: str) -> tuple[float, ...]:
        """Return the multipliers of the learning rates that are tried for an arm."""
        start = self.arms[arm].start
        return self.lr_multipliers.get(arm) or self.lr_multipliers.get(start) or LR_MULTIPLIERS[start]

    def num_steps(self, task: str) -> int:
        """Return how many steps every arm of a task takes."""
        return self.steps[task] if isinstance(self.steps, dict) else self.steps
