"""Compare arms on every transfer task, from few labels and under one budget.

The default arms are `pretrained`, the any-to-any model, `scratch`, the same architecture with fresh weights, and `baseline`, a
small CNN; `finetuning.arms` can name others. In a task all arms take the same number of steps and samples. The learning rate of
each arm is chosen on `transfer_val`, by runs that are not counted; `transfer_test` is read once per counted run. Every run has
a result file, so an interrupted comparison continues with the runs that have none. On a CPU several runs train at once, each
with one thread (`fourfold.local_workers`).
"""

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from fourfold.data.cursor import index_batches
from fourfold.digests import is_intact, write_recorded_json
from fourfold.generation.config import find_modality
from fourfold.local_workers import run_all
from fourfold.metric_log import NullMetricLog
from fourfold.metrics.statistics import defined
from fourfold.reuse import claim, fingerprint
from fourfold.seeds import derive_seed, numpy_generator
from fourfold.storage import read_json
from fourfold.training.config import LoopConfig, ScheduleConfig
from fourfold.training.loop import TrainingSetup, train
from fourfold.training.precision import autocast, default_device, log_compute_facts
from fourfold.training.run_context import RunContext
from fourfold.transfer.adaptation import merge_lora
from fourfold.transfer.arms import Draw, PretrainedModel, build_learner, optimizer_of
from fourfold.transfer.config import TransferConfig
from fourfold.transfer.efficiency import CHART, label_efficiency, write_chart
from fourfold.transfer.examples import Examples, ExampleSource, balanced
from fourfold.transfer.labeled import LABELS
from fourfold.transfer.mixing import loss_of
from fourfold.transfer.runs import Run, describe_tasks, example_answers, first_answers, tabulate
from fourfold.transfer.tasks import (
    TRAIN,
    TRANSFER_TASKS,
    Scoring,
    TransferData,
    TransferTask,
    load_examples,
    num_examples,
    select_tasks,
)

logger = logging.getLogger(__name__)
REPORT_FILE = "report.html"  # of a run on a public benchmark
OFFICIAL_FACTS = ("title", "split", "protocol", "view", "samples", "complete", "scores", "published")


@dataclass(frozen=True)
class Comparison:
    """All that the runs share."""

    pretrained: PretrainedModel
    data: TransferData
    config: TransferConfig
    context: RunContext
    tasks: dict[str, TransferTask]  # those that the data have examples of
    examples: dict[tuple[str, str], Examples] = field(default_factory=dict)  # by task and split
    streams: dict[str, ExampleSource] = field(default_factory=dict)  # by task

    def load(self, task: TransferTask, split: str, max_examples: int) -> Examples:
        """Return examples of a split, read once."""
        if (task.name, split) not in self.examples:
            self.examples[task.name, split] = load_examples(task, self.data, split, max_examples, self.context.seed)
        return self.examples[task.name, split]

    @property
    def side(self) -> int:
        """Pixels of the sides of the images that the model takes."""
        config = self.pretrained.model.config
        return config.pixel_sizes[find_modality("rgb", config.names)][0]

    def labeled_pool(self, task: TransferTask) -> ExampleSource:
        """Return all examples of `transfer_train`, from which the runs draw their labels."""
        if task.stream is not None:
            if task.name not in self.streams:
                self.streams[task.name] = task.stream.pool(task, self.side, self.context.seed)
            return self.streams[task.name]
        return self.load(task, TRAIN, num_examples(task, self.data, TRAIN))

    def label_counts(self, name: str) -> list[int]:
        """Return the numbers of labels that a task is learned from; for annotations and labels at most what the source has."""
        task, counts = self.tasks[name], self.config.num_labels
        if not task.has_own_splits:
            return list(counts)
        pool = len(self.labeled_pool(task))
        if max(counts) > pool:
            logger.info("Transfer task %s: %d labels are asked for; the source has %d.", name, max(counts), pool)
        return list(dict.fromkeys(min(count, pool) for count in counts))

    def scored_examples(self, task: TransferTask, split: str) -> Examples:
        """Return the examples of `transfer_val` or `transfer_test` on which runs are scored."""
        return self.load(task, split, self.config.num_test if split == "transfer_test" else self.config.num_selection)

    def has_arm(self, name: str, arm: str) -> bool:
        """Return whether an arm learns a task: a probe needs a head, and the answers of text tasks come from the decoder."""
        if self.config.arms[arm].probe and self.tasks[name].kind == "text":
            logger.warning("Transfer task %s has no arm %s: it has no head that a probe could train.", name, arm)
            return False
        return True

    def result_path(self, run: Run, split: str) -> Path:
        """Return the result file of a run."""
        return self.context.root / f"{run.name}-{split}.json"

    def has_result(self, run: Run, split: str) -> bool:
        """Return whether the result file of a run is there as it was written."""
        path = self.result_path(run, split)
        return is_intact(path.parent, path.name, remedy="Computing it again.")


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
        `tasks`, titles and metrics of the tasks, for the report. `model` is the digest of the model; `skipped` has the reasons
        why tasks were skipped, if any were; `label_efficiency` is there with three numbers of labels or more, as is its chart.
        `benchmarks` has the official result of each run on a public benchmark: scores with intervals, sizes, published numbers.

    Raises:
        ValueError: a public benchmark has no data or none that fit the settings, or there are fewer examples than labels.
    """
    inputs = {"model": pretrained.digest, "shards": data.shards.digest(), "truth": data.truth.digest()}
    registered = [TRANSFER_TASKS.get(name) for name in config.task_names]
    tasks, skipped = select_tasks(config.task_names, data)
    inputs |= {f"benchmark {name}": task.stream.digest() for name, task in tasks.items() if task.stream is not None}
    if data.labels is not None and any(task.truth == LABELS for task in registered):
        inputs["labels"] = data.labels.digest()
    claim(context.root, fingerprint(__name__, inputs=inputs, uses=registered, config=config, seed=context.seed))
    log_compute_facts("fine-tuning", config.precision, default_device())
    for name, reason in skipped.items():
        logger.warning("Transfer task %s is skipped: %s.", name, reason)
    comparison = Comparison(pretrained, data, config, context, tasks)
    # 1) Choose the learning rate of each arm on transfer_val.
    arms = [(name, arm) for name, arm in product(tasks, config.arms) if comparison.has_arm(name, arm)]
    candidates = {(name, arm): candidate_runs(comparison, name, arm) for name, arm in arms}
    compute_all(comparison, [run for runs in candidates.values() for run in runs], "transfer_val", "Choosing learning rates")
    chosen = {key: choose_lr_multiplier(comparison, *key, runs) for key, runs in candidates.items()}
    # 2) Train and score the runs that count.
    runs = [
        Run(name, arm, count, seed, chosen[name, arm])
        for name in tasks
        for count, arm, seed in product(comparison.label_counts(name), config.arms, range(config.num_seeds))
        if (name, arm) in chosen
    ]
    compute_all(comparison, runs, "transfer_test", "Fine-tuning")
    results = {run: result_of(comparison, run, "transfer_test") for run in runs}
    # 3) Gather them; with several numbers of labels also as curves.
    official = {
        run.name: {key: value for key, value in result["official"].items() if key in OFFICIAL_FACTS}
        for run, result in results.items()
        if "official" in result
    }
    transfer = tabulate(results)
    efficiency = label_efficiency(transfer, tasks, next(iter(config.arms)))
    if efficiency:
        chart = write_chart(transfer, {name: tasks[name] for name in efficiency}, context.root)
        context.log.log_file(chart, f"finetuning/{CHART}")  # a tracker takes the part before the slash as a folder
    return {
        "model": pretrained.digest,
        "transfer": transfer,
        "lr_multipliers": {f"{name}/{arm}": value for (name, arm), value in chosen.items()},
        "examples": example_answers(results),
        "tasks": describe_tasks(tasks),
        **({"benchmarks": official} if official else {}),
        **({"label_efficiency": efficiency} if efficiency else {}),
        **({"skipped": skipped} if skipped else {}),
    }


def candidate_runs(comparison: Comparison, name: str, arm: str) -> list[Run]:
    """Return the runs that choose the learning rate of an arm, with the most labels; none if there is no choice.

    Their seed differs from those of the counted runs, so their labels are not those that chose the rate.
    """
    multipliers, seed = comparison.config.lr_multipliers_of(arm), comparison.config.num_seeds
    if len(multipliers) < 2:
        return []
    return [Run(name, arm, max(comparison.label_counts(name)), seed, value) for value in multipliers]


def choose_lr_multiplier(comparison: Comparison, name: str, arm: str, candidates: list[Run]) -> float:
    """Return the multiplier of the learning rates that is best on `transfer_val`; the first of equals."""
    if not candidates:
        return comparison.config.lr_multipliers_of(arm)[0]
    metric = comparison.tasks[name].main_metric
    sign = -1 if metric.lower_is_better else 1
    found = [result_of(comparison, run, "transfer_val")["metrics"] for run in candidates]
    scores = [sign * each[metric.name] if metric.name in each else -np.inf for each in found]
    return candidates[int(np.argmax(scores))].lr_multiplier


def compute_all(comparison: Comparison, runs: list[Run], split: str, description: str) -> None:
    """Train the runs that have no result file yet, several at once, and write these files."""
    missing = [run for run in runs if not comparison.has_result(run, split)]
    for name in dict.fromkeys(run.task for run in missing):  # read once, before the processes start
        comparison.labeled_pool(comparison.tasks[name])
        if comparison.tasks[name].stream is None:
            comparison.scored_examples(comparison.tasks[name], split)

    def compute(run: Run) -> None:
        path = comparison.result_path(run, split)
        with comparison.context.scratch(f"{path.stem}-checkpoints") as context:
            write_recorded_json(path.parent, path.name, execute(comparison, run, split, context))

    run_all(compute, missing, description, "run")


def result_of(comparison: Comparison, run: Run, split: str) -> dict[str, Any]:
    """Return the result of a computed run, and log its metrics."""
    result = read_json(comparison.result_path(run, split))
    comparison.context.log.log_metrics({f"{run.name}/{metric}": value for metric, value in result["metrics"].items()})
    report = comparison.context.root / run.name / REPORT_FILE
    if "official" in result and report.is_file():
        comparison.context.log.log_file(report, f"finetuning/{run.name}/{REPORT_FILE}")
    return result


def execute(comparison: Comparison, run: Run, split: str, context: RunContext) -> dict[str, Any]:
    """Train one learner and score it on `split`; a killed training resumes from `context.folder`."""
    task, config = comparison.tasks[run.task], comparison.config
    # 1) Draw the labels; the same for all arms of a seed.
    seed = derive_seed(comparison.context.seed, "transfer", run.task, run.seed)
    pool = comparison.labeled_pool(task)
    if run.num_labels > len(pool):
        raise ValueError(
            f"finetuning.num_labels has {run.num_labels}, more than the {len(pool)} of transfer_train. Lower num_labels."
        )
    order = numpy_generator(seed, "labels").permutation(len(pool))
    if config.balanced and len(pool.classes) == 1:
        order = order[balanced(*(column[order] for column in pool.classes.values()))]
    labeled = pool.subset(order[: run.num_labels])
    # 2) Train; maps in files have the size of the model's images, those in memory that of the stored images.
    arm = config.arms[run.arm]
    seen = labeled.resized(arm.image_size)
    draw = Draw(labeled if task.stream is None else seen, seed)
    learner = build_learner(comparison.pretrained, task, config, arm, draw).to(default_device())
    fit(learner, seen, config, run, replace(context, seed=seed, log=NullMetricLog()))
    merge_lora(learner)
    # 3) Score.
    with torch.inference_mode():
        if task.stream is not None:
            scoring = Scoring(arm.image_size or comparison.side, comparison.context.seed, run.name, comparison.context.root)
            official = task.stream.score(task, learner.eval(), split, scoring)
            values = {name: score["value"] for name, score in official["scores"].items()}
            return {"metrics": values, "examples": [], "official": official}
        examples = comparison.scored_examples(task, split)
        predicted = learner.eval().predict(examples.resized(arm.image_size))
    metrics = {name: round(value, 6) for name, value in defined(task.score(predicted, examples)).items()}
    return {"metrics": metrics, "examples": first_answers(examples, predicted) if task.kind == "text" else []}


def fit(learner: nn.Module, labeled: ExampleSource, config: TransferConfig, run: Run, context: RunContext) -> None:
    """Train a learner in place, with the same steps, schedule and batches for all arms."""
    arm = config.arms[run.arm]
    optimizer = optimizer_of(learner, config.optimizer, arm, run.lr_multiplier)
    num_steps = config.num_steps(run.task)
    schedule = ScheduleConfig(warmup_steps=round(config.warmup_share * num_steps))

    def compute_loss(batch: Examples, step: int) -> tuple[Tensor, dict[str, Tensor]]:
        with autocast(config.precision, default_device()), seeded(derive_seed(context.seed, "step", step)):
            loss = loss_of(learner, batch, arm, numpy_generator(context.seed, "mixing", step))
        return loss, {"loss": loss.detach()}

    size = min(config.batch_size, len(labeled))
    setup = TrainingSetup(
        learner,
        compute_loss,
        lambda cursor: labeled.batches(index_batches(len(labeled), size, context.seed, "order", start=cursor), context.seed),
        optimizer,
        num_steps,
        schedule,
    )
    train(setup, LoopConfig(average_decay=arm.average_decay), context, description=run.name)


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Let torch draw from a seed inside the block (stochastic depth, sampled boxes), and as before after it."""
    devices = [torch.cuda.current_device()] if torch.cuda.is_available() else []
    with torch.random.fork_rng(devices):
        torch.manual_seed(seed)
        yield
