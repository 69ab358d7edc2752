"""Nodes of the comparison with specialists: train, score, measure, draw, write."""

from itertools import islice
from pathlib import Path
from typing import Any

from fourfold.data.shards import ShardSet
from fourfold.evaluation.config import EvaluationConfig
from fourfold.evaluation.samples import EvaluationData, load_samples
from fourfold.generation.any_to_any import AnyToAny
from fourfold.labelers.teachers import TeacherSet
from fourfold.metric_log import MetricLog
from fourfold.pretraining.config import PretrainConfig
from fourfold.specialists.config import SpecialistsConfig
from fourfold.specialists.costs import generalist_costs, measure_costs
from fourfold.specialists.figures import chart_png, gallery_png, gallery_rows
from fourfold.specialists.probing import probe_pretraining
from fourfold.specialists.scoring import Contestants, score_contestants
from fourfold.specialists.table import as_html, as_markdown, comparison, logged
from fourfold.specialists.training import SpecialistSet
from fourfold.specialists.training import train_specialists as train_all
from fourfold.training.run_context import RunContext


def train_specialists(
    shards: ShardSet,
    labels: ShardSet,
    any_to_any: AnyToAny,
    specialists: SpecialistsConfig,
    seed: int,
    specialists_folder: Path,
    log: MetricLog,
) -> SpecialistSet:
    """Train a network for each task on the images and labels of the generalist, and fine-tune the generalist on them."""
    return train_all(shards, labels, specialists, RunContext(seed, specialists_folder, log), any_to_any)


def score_specialists(
    trained: SpecialistSet,
    any_to_any: AnyToAny,
    teachers: TeacherSet,
    shards: ShardSet,
    labels: ShardSet,
    truth: ShardSet,
    evaluation: EvaluationConfig,
    seed: int,
) -> dict[str, Any]:
    """Score specialists, generalist and teachers on the test samples, with the metrics of the evaluation."""
    return score_contestants(
        Contestants(trained, any_to_any, teachers), EvaluationData(shards, labels, truth), evaluation, seed
    )


def measure_specialists(
    trained: SpecialistSet,
    any_to_any: AnyToAny,
    teachers: TeacherSet,
    shards: ShardSet,
    known_tokens: ShardSet | None,
    pretraining: PretrainConfig,
    seed: int,
    stage_seconds: dict[str, float],
    specialist_metrics: dict[str, Any],
    log: MetricLog,
) -> dict[str, Any]:
    """Measure latencies and the cost of pretraining, and gather what the trainings took; log all of it and the metrics."""
    probed = probe_pretraining(any_to_any, known_tokens, shards, pretraining, seed)
    image = next(islice(shards.iterate("test", ["rgb"]), 1))["rgb"]
    ways = Contestants(trained, any_to_any, teachers).ways(image[None])
    costs = measure_costs(ways, trained, image, generalist_costs(probed, stage_seconds))
    log.log_metrics(logged(specialist_metrics, costs))
    return costs


def draw_specialists(
    trained: SpecialistSet,
    any_to_any: AnyToAny,
    teachers: TeacherSet,
    shards: ShardSet,
    labels: ShardSet,
    truth: ShardSet,
) -> bytes:
    """Return the first test samples with the predictions of everything that is compared, as one PNG."""
    contestants, data = Contestants(trained, any_to_any, teachers), EvaluationData(shards, labels, truth)
    samples = load_samples(data, data.split, {"semseg", *contestants.targets}, trained.config.gallery_samples)
    return gallery_png(samples, gallery_rows(samples, contestants.ways(samples.rgb[:1])), contestants.targets)


def write_comparison(
    specialist_metrics: dict[str, Any], specialist_costs: dict[str, Any], gallery: bytes
) -> tuple[dict[str, Any], str, str, bytes]:
    """Return the table as JSON, Markdown and HTML, and the chart."""
    table = comparison(specialist_metrics, specialist_costs)
    chart = chart_png(specialist_metrics, table)
    return table, as_markdown(table), as_html(table, chart, gallery), chart
