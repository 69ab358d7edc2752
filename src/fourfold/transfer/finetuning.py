"""Is pretraining worth it? Every task, from few labels, by three arms under one budget.

`pretrained` is the any-to-any model, `scratch` the same architecture with fresh weights, `baseline` a small CNN. In a task
all take the same number of steps and samples; each arm's learning rate is chosen on `transfer_val`, with a run that is not
counted; `transfer_test` is read once per counted run. Runs are finished one by one: what is done is never done again.
"""

# N labels

import logging
from dataclasses import dataclass, field
from functools import cached_property
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from fourfold.data.cursor import index_batches
from fourfold.data.shards import ShardSet
from fourfold.metric_log import MetricLog
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
from fourfold.transfer.baselines import AnswerBaseline, CaptionBaseline, ClassBaseline
from fourfold.transfer.config import ARMS, Arm, TaskName, TransferConfig
from fourfold.transfer.learners import ClassLearner, TextCodec, TextLearner
from fourfold.transfer.tasks import Examples, Task, load_examples, task

logger = logging.getLogger(__name__)

NUM_SHOWN = 8  # test examples kept with their answers, for the report


@dataclass(frozen=True)
class Run:
    """One training: a task, an arm, a number of labels, a seed, a factor of the learning rates."""

    task: TaskName
    arm: Arm
    num_labels: int
    seed: int
    factor: float

    @property
    def name(self) -> str:
        """Return the run's name, also that of its file."""
        return f"{self.task}-{self.arm}-{self.num_labels}-seed{self.seed}-lr{self.factor:g}"


@dataclass(frozen=True)
class Bench:
    """All that the runs share."""

    model: FourM
    text: TextCodec
    shards: ShardSet
    truth: ShardSet
    config: TransferConfig
    seed: int
    folder: Path
    log: MetricLog
    examples: dict[tuple[str, str], Examples] = field(default_factory=dict)

    def data(self, which: Task, split: str, most: int) -> Examples:
        """Return examples of a split, read once."""
        if (which.name, split) not in self.examples:
            self.examples[which.name, split] = load_examples(which, split, self.shards, self.truth, most, self.seed)
        return self.examples[which.name, split]

    @cached_property
    def pretrained_weights(self) -> dict[str, Tensor]:
        """The weights every pretrained arm starts from."""
        return {name: tensor.clone() for name, tensor in self.model.state_dict().items()}


def finetune(
    model: FourM,
    text: TextCodec,
    shards: ShardSet,
    truth: ShardSet,
    config: TransferConfig,
    seed: int,
    folder: Path,
    log: MetricLog,
    digest: str = "",
) -> dict[str, Any]:
    """Run every task, arm, number of labels and seed; return the table and what is shown of it.

    Args:
        model, text: the pretrained model and its text tokenizer.
        shards, truth: images and exact attributes of `transfer_train`, `transfer_val` and `transfer_test`.
        config, seed: of the comparison.
        folder: one JSON file per run; a killed comparison goes on with the first run that has none.
        log: takes the figures as they come.
        digest: names the pretrained model, for the fingerprint of the folder.

    Returns:
        `{"transfer": {"vqa_200": {"accuracy": {"pretrained": {"mean", "std", "n"}, ...}}}, "chosen": ..., "examples": ...}`;
        std is that of seeds (n − 1), 0 for one seed.
    """
    inputs = {"model": digest, "shards": shards.digest(), "truth": truth.digest()}
    claim(folder, fingerprint(__name__, inputs=inputs, uses=map(task, config.tasks), config=config, seed=seed))
    log_compute_facts("fine-tuning", config.precision, default_device())
    bench = Bench(model, text, shards, truth, config, seed, folder, log)
    arms = list(product(config.tasks, ARMS))
    chosen = {
        (name, arm): choose_factor(bench, name, arm) for name, arm in progress(arms, "Choosing learning rates", unit="arm")
    }
    runs = [
        Run(name, arm, count, one, chosen[name, arm])
        for name, count, arm, one in product(config.tasks, config.num_labels, ARMS, range(config.num_seeds))
    ]
    results = {run: finished(bench, run, "transfer_test") for run in progress(runs, "Fine-tuning", unit="run")}
    rates = {f"{name}/{arm}": value for (name, arm), value in chosen.items()}
    return {"transfer": tabulate(results), "learning_rate_factors": rates, "examples": shown(results)}


def choose_factor(bench: Bench, name: TaskName, arm: Arm) -> float:
    """Return the factor of the learning rates that is best on `transfer_val` at the most labels; the first of equals."""
    factors = bench.config.factors[arm]
    if len(factors) == 1:
        return factors[0]
    runs = [
        Run(name, arm, max(bench.config.num_labels), bench.config.num_seeds, value) for value in factors
    ]  # a seed of its own
    scores = [finished(bench, run, "transfer_val")["metrics"][task(name).selected_by] for run in runs]
    return factors[int(np.argmax(scores))]


def finished(bench: Bench, run: Run, split: str) -> dict[str, Any]:
    """Return a run's result, from its file when it is done already."""
    path = bench.folder / f"{run.name}-{split}.json"
    if not path.exists():
        write_json(path, execute(bench, run, split))
    result = read_json(path)
    bench.log.log_metrics({f"{run.name}/{metric}": value for metric, value in result["metrics"].items()})
    return result


def execute(bench: Bench, run: Run, split: str) -> dict[str, Any]:
    """Train one learner and judge it on `split`."""
    which, config = task(run.task), bench.config
    seed = derive_seed(bench.seed, "transfer", run.task, run.seed)
    pool = bench.data(which, "transfer_train", len(bench.shards.keys("transfer_train")))
    if run.num_labels > len(pool):
        raise ValueError(f"{run.num_labels} labels are more than the {len(pool)} of transfer_train. Lower num_labels.")
    labeled = pool.subset(numpy_generator(seed, "labels").permutation(len(pool))[: run.num_labels])
    learner = build_learner(bench, run, which, labeled, seed).to(default_device())
    fit(learner, labeled, config, run, seed)
    most = config.num_test if split == "transfer_test" else config.num_selection
    judged = bench.data(which, split, most)
    with torch.inference_mode():
        predicted = learner.eval().predict(judged)
    metrics = {name: round(value, 6) for name, value in which.score(predicted, judged).items()}
    return {"metrics": metrics, "examples": _first(judged, predicted) if which.kind == "text" else []}


def build_learner(bench: Bench, run: Run, which: Task, labeled: Examples, seed: int) -> Any:
    """Return the untrained learner of a run."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(derive_seed(seed, "weights"))
        if run.arm == "baseline":
            if which.kind == "classes":
                return ClassBaseline(seed)
            if any(labeled.prompts):
                return AnswerBaseline(labeled, bench.text)
            return CaptionBaseline(bench.text, bench.config.max_tokens)
        model = fresh_model(bench, run.arm, seed)
        return ClassLearner(model, seed) if which.kind == "classes" else TextLearner(model, bench.text, bench.config.max_tokens)


def fresh_model(bench: Bench, arm: Arm, seed: int) -> FourM:
    """Return a copy of the pretrained model, or the same architecture with weights from `seed`."""
    model = FourM(ModelConfig.model_validate(bench.model.config.model_dump()), seed)
    if arm == "pretrained":
        model.load_state_dict(bench.pretrained_weights)
    return model


def fit(learner: nn.Module, labeled: Examples, config: TransferConfig, run: Run, seed: int) -> None:
    """Train a learner in place, all arms alike."""
    rates = {name: getattr(config.optimizer, name) * run.factor for name in ("learning_rate", "muon_learning_rate")}
    kernels = {f"{name}.weight": 1 for name, module in learner.named_modules() if isinstance(module, nn.Conv2d)}
    matrices = kernels if run.arm == "baseline" else None
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


def shown(results: dict[Run, dict[str, Any]]) -> list[dict[str, str]]:
    """Return some test examples with the answers of each arm: most labels, first seed."""
    most = max(run.num_labels for run in results)
    rows: dict[tuple[str, int], dict[str, str]] = {}
    for run, result in results.items():
        if run.num_labels == most and run.seed == 0:
            for index, example in enumerate(result["examples"]):
                row = rows.setdefault(
                    (run.task, index), {"task": run.task, **{k: v for k, v in example.items() if k != "predicted"}}
                )
                row[run.arm] = example["predicted"]
    return list(rows.values())


def _summary(values: list[float]) -> dict[str, float | int]:
    spread = float(np.std(values, ddof=1)) if len(values) > 1 else 0.0
    return {"mean": round(float(np.mean(values)), 6), "std": round(spread, 6), "n": len(values)}


def _first(judged: Examples, predicted: list[str]) -> list[dict[str, Any]]:
    columns = zip(range(NUM_SHOWN), judged.prompts, judged.answers, predicted, strict=False)
    return [{"index": i, "prompt": prompt, "answer": answer, "predicted": said} for i, prompt, answer, said in columns]
