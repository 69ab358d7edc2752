"""Compare three arms on every transfer task, from few labels and under one budget.

`pretrained` is the any-to-any model, `scratch` the same architecture with fresh weights, `baseline` a small CNN. In a task all
arms take the same number of steps and samples. The learning rate of each arm is chosen on `transfer_val`, by runs that are not
counted; `transfer_test` is read once per counted run. Every run has a result file, so an interrupted comparison continues with
the first run that has none.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import cached_property
from itertools import product
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from fourfold.data.cursor import index_batches
from fourfold.model.config import ModelConfig
from fourfold.model.fourm import FourM
from fourfold.progress import progress
from fourfold.reuse import claim, fingerprint
from fourfold.seeds import derive_seed, numpy_generator
from fourfold.storage import read_json, write_json
from fourfold.training.config import LoopConfig, ScheduleConfig
from fourfold.training.loop import TrainingSetup, train
from fourfold.training.optimizers import build_optimizer
from fourfold.training.precision import autocast, default_device, log_compute_facts
from fourfold.training.run_context import RunContext
from fourfold.transfer.baselines import AnswerBaseline, CaptionBaseline, ClassBaseline, muon_matrices
from fourfold.transfer.config import ARMS, Arm, TransferConfig
from fourfold.transfer.learners import ClassLearner, TextCodec, TextLearner
from fourfold.transfer.tasks import TRANSFER_TASKS, Examples, TransferData, TransferTask, load_examples

NUM_SHOWN = 8  # test examples kept with their answers, for the report


@dataclass(frozen=True)
class Run:
    """One training: a task, an arm, a number of labels, a seed, a multiplier of the learning rates."""

    task: str
    arm: Arm
    num_labels: int
    seed: int
    lr_multiplier: float

    @property
    def name(self) -> str:
        """The run's name, also that of its result file."""
        return f"{self.task}-{self.arm}-{self.num_labels}-seed{self.seed}-lr{self.lr_multiplier:g}"


@dataclass(frozen=True)
class PretrainedModel:
    """The model that is fine-tuned, its text tokenizer, and a digest that identifies both."""

    model: FourM
    text: TextCodec
    digest: str = ""

    @cached_property
    def weights(self) -> dict[str, Tensor]:
        """A copy of the weights, which every pretrained arm starts from."""
        return {name: tensor.clone() for name, tensor in self.model.state_dict().items()}


@dataclass(frozen=True)
class Comparison:
    """All that the runs share."""

    pretrained: PretrainedModel
    data: TransferData
    config: TransferConfig
    context: RunContext
    examples: dict[tuple[str, str], Examples] = field(default_factory=dict)  # by task and split

    def load(self, task: TransferTask, split: str, max_examples: int) -> Examples:
        """Return examples of a split, read once."""
        if (task.name, split) not in self.examples:
            self.examples[task.name, split] = load_examples(task, self.data, split, max_examples, self.context.seed)
        return self.examples[task.name, split]


def finetune(pretrained: PretrainedModel, data: TransferData, config: TransferConfig, context: RunContext) -> dict[str, Any]:
    """Run every task, arm, number of labels and seed.

    Args:
        pretrained: the model and its text tokenizer.
        data: images and exact truth of the transfer splits.
        config: of the comparison.
        context: the seed, the folder of the result files, and the log that takes the metrics of each run.

    Returns:
        `transfer`: `{"vqa_200": {"accuracy": {"pretrained": {"mean", "std", "n"}, ...}}}`, std being the sample standard
        deviation over seeds (0 for one seed); `lr_multipliers` by task and arm; `examples` with the answers of each arm; and
        `tasks`, titles and metrics of the tasks, for the report.
    """
    inputs = {"model": pretrained.digest, "shards": data.shards.digest(), "truth": data.truth.digest()}
    tasks = [TRANSFER_TASKS.get(name) for name in config.task_names]
    claim(context.root, fingerprint(__name__, inputs=inputs, uses=tasks, config=config, seed=context.seed))
    log_compute_facts("fine-tuning", config.precision, default_device())
    comparison = Comparison(pretrained, data, config, context)
    # 1) Choose the learning rate of each arm on transfer_val.
    arms = list(product(config.task_names, ARMS))
    chosen = {
        (name, arm): choose_lr_multiplier(comparison, name, arm)
        for name, arm in progress(arms, "Choosing learning rates", unit="arm")
    }
    # 2) Train and score the runs that count.
    runs = [
        Run(name, arm, count, seed, chosen[name, arm])
        for name, count, arm, seed in product(config.task_names, config.num_labels, ARMS, range(config.num_seeds))
    ]
    results = {run: finished(comparison, run, "transfer_test") for run in progress(runs, "Fine-tuning", unit="run")}
    return {
        "transfer": tabulate(results),
        "lr_multipliers": {f"{name}/{arm}": value for (name, arm), value in chosen.items()},
        "examples": example_answers(results),
        "tasks": describe_tasks(config.task_names),
    }


def choose_lr_multiplier(comparison: Comparison, name: str, arm: Arm) -> float:
    """Return the multiplier of the learning rates that is best on `transfer_val` with the most labels; the first of equals."""
    config = comparison.config
    multipliers = config.lr_multipliers[arm]
    if len(multipliers) == 1:
        return multipliers[0]
    # The seed differs from those of the counted runs, so their labels are not those that chose the rate.
    runs = [Run(name, arm, max(config.num_labels), config.num_seeds, value) for value in multipliers]
    metric = TRANSFER_TASKS.get(name).main_metric
    scores = [finished(comparison, run, "transfer_val")["metrics"][metric] for run in runs]
    return multipliers[int(np.argmax(scores))]


def finished(comparison: Comparison, run: Run, split: str) -> dict[str, Any]:
    """Return a run's result, from its file if there is one."""
    path = comparison.context.root / f"{run.name}-{split}.json"
    if not path.exists():
        write_json(path, execute(comparison, run, split))
    result = read_json(path)
    comparison.context.log.log_metrics({f"{run.name}/{metric}": value for metric, value in result["metrics"].items()})
    return result


def execute(comparison: Comparison, run: Run, split: str) -> dict[str, Any]:
    """Train one learner and score it on `split`."""
    task, config = TRANSFER_TASKS.get(run.task), comparison.config
    # 1) Draw the labels; the same for all arms of a seed.
    seed = derive_seed(comparison.context.seed, "transfer", run.task, run.seed)
    pool = comparison.load(task, "transfer_train", comparison.data.shards.num_samples("transfer_train"))
    if run.num_labels > len(pool):
        raise ValueError(
            f"finetuning.num_labels has {run.num_labels}, more than the {len(pool)} of transfer_train. Lower num_labels."
        )
    labeled = pool.subset(numpy_generator(seed, "labels").permutation(len(pool))[: run.num_labels])
    # 2) Train.
    learner = build_learner(comparison, run, labeled, seed).to(default_device())
    fit(learner, labeled, config, run, seed)
    # 3) Score.
    max_examples = config.num_test if split == "transfer_test" else config.num_selection
    examples = comparison.load(task, split, max_examples)
    with torch.inference_mode():
        predicted = learner.eval().predict(examples)
    metrics = {name: round(value, 6) for name, value in task.score(predicted, examples).items()}
    return {"metrics": metrics, "examples": _first_answers(examples, predicted) if task.kind == "text" else []}


def build_learner(comparison: Comparison, run: Run, labeled: Examples, seed: int) -> Any:
    """Return the untrained learner of a run: a module with `loss(examples)` and `predict(examples)`."""
    task, text = TRANSFER_TASKS.get(run.task), comparison.pretrained.text
    max_tokens = comparison.config.max_tokens
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(derive_seed(seed, "weights"))
        if run.arm == "baseline":
            if task.kind == "classes":
                return ClassBaseline(task.choices, seed)
            return AnswerBaseline(labeled, text) if any(labeled.prompts) else CaptionBaseline(text, max_tokens)
        model = fresh_model(comparison.pretrained, run.arm, seed)
        return ClassLearner(model, task.choices, seed) if task.kind == "classes" else TextLearner(model, text, max_tokens)


def fresh_model(pretrained: PretrainedModel, arm: Arm, seed: int) -> FourM:
    """Return a copy of the pretrained model, or the same architecture with weights from `seed`."""
    model = FourM(ModelConfig.model_validate(pretrained.model.config.model_dump()), seed)
    if arm == "pretrained":
        model.load_state_dict(pretrained.weights)
    return model


def fit(learner: nn.Module, labeled: Examples, config: TransferConfig, run: Run, seed: int) -> None:
    """Train a learner in place, with the same steps, schedule and batches for all arms."""
    rates = {name: getattr(config.optimizer, name) * run.lr_multiplier for name in ("learning_rate", "muon_learning_rate")}
    # In the transformer the optimizer finds the matrices for Muon by itself.
    matrices = muon_matrices(learner) if run.arm == "baseline" else None
    optimizer = build_optimizer(learner, config.optimizer.model_copy(update=rates), matrices)
    num_steps = config.num_steps(run.task)
    schedule = ScheduleConfig(warmup_steps=round(config.warmup_share * num_steps))

    def compute_loss(indices: np.ndarray, step: int) -> tuple[Tensor, dict[str, Tensor]]:
        with autocast(config.precision, default_device()):
            loss = learner.loss(labeled.subset(indices))  # type: ignore[operator]
        return loss, {"loss": loss.detach()}

    size = min(config.batch_size, len(labeled))
    setup = TrainingSetup(
        learner,
        compute_loss,
        lambda cursor: index_batches(len(labeled), size, seed, "order", start=cursor),
        optimizer,
        num_steps,
        schedule,
    )
    train(setup, LoopConfig(), RunContext(seed), description=run.name)


def tabulate(results: dict[Run, dict[str, Any]]) -> dict[str, dict[str, dict[str, dict[str, float | int]]]]:
    """Return `{"<task>_<labels>": {metric: {arm: {"mean", "std", "n"}}}}` over seeds."""
    gathered: dict[str, dict[str, dict[str, list[float]]]] = {}
    for run, result in results.items():
        for metric, value in result["metrics"].items():
            of_task = gathered.setdefault(f"{run.task}_{run.num_labels}", {})
            of_task.setdefault(metric, {}).setdefault(run.arm, []).append(value)
    return {t: {m: {a: _summary(v) for a, v in arms.items()} for m, arms in ms.items()} for t, ms in gathered.items()}


def example_answers(results: dict[Run, dict[str, Any]]) -> list[dict[str, str]]:
    """Return some test examples with the answers of each arm, from the runs with the most labels and the first seed."""
    max_labels = max(run.num_labels for run in results)
    rows: dict[tuple[str, int], dict[str, str]] = {}
    for run, result in results.items():
        if run.num_labels == max_labels and run.seed == 0:
            for index, example in enumerate(result["examples"]):
                question = {key: value for key, value in example.items() if key != "predicted"}
                row = rows.setdefault((run.task, index), {"task": run.task, **question})
                row[run.arm] = example["predicted"]
    return list(rows.values())


def describe_tasks(names: Iterable[str]) -> dict[str, Any]:
    """Return title and metrics of some tasks as JSON, by name; the main metric is the first."""
    tasks = [TRANSFER_TASKS.get(name) for name in names]
    return {task.name: {"title": task.title, "metrics": [vars(metric) for metric in task.metrics]} for task in tasks}


def _summary(values: list[float]) -> dict[str, float | int]:
    deviation = float(np.std(values, ddof=1)) if len(values) > 1 else 0.0
    return {"mean": round(float(np.mean(values)), 6), "std": round(deviation, 6), "n": len(values)}


def _first_answers(examples: Examples, predicted: list[str]) -> list[dict[str, Any]]:
    columns = zip(range(NUM_SHOWN), examples.prompts, examples.answers, predicted, strict=False)
    return [{"index": i, "prompt": prompt, "answer": answer, "predicted": ours} for i, prompt, answer, ours in columns]
