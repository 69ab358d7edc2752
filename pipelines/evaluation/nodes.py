"""Nodes of evaluation: score, gather, report, publish."""

from pathlib import Path
from typing import Any

from fourfold.data.shards import ShardSet
from fourfold.evaluation.benchmarks import evaluate_benchmarks
from fourfold.evaluation.config import EvaluationConfig
from fourfold.evaluation.evaluate import evaluate, required_names
from fourfold.evaluation.report.decoders import collect_decoders
from fourfold.evaluation.report.gallery import collect_gallery, gallery_png
from fourfold.evaluation.report.page import ReportData, render_images, write_report
from fourfold.evaluation.samples import EvaluationData, load_samples
from fourfold.generation.any_to_any import AnyToAny
from fourfold.labelers.teachers import TeacherSet


def evaluate_model(
    any_to_any: AnyToAny,
    teachers: TeacherSet,
    shards: ShardSet,
    labels: ShardSet,
    truth: ShardSet,
    evaluation: EvaluationConfig,
    seed: int,
) -> dict[str, Any]:
    """Compare the model's predictions on the test split with the truth. Nothing else reads the test split."""
    encoder = teachers.image_text_encoder(evaluation.text_encoder) if evaluation.text_encoder else None
    table = evaluate(any_to_any, encoder, EvaluationData(shards, labels, truth), evaluation, seed)
    benchmarks = evaluate_benchmarks(any_to_any, encoder, evaluation, seed)
    return table | ({"benchmarks": benchmarks} if benchmarks else {})


def gather_metrics(
    out_of_the_box: dict[str, Any],
    transfer_results: dict[str, Any],
    teacher_metrics: dict[str, float],
    tokenizer_metrics: dict[str, float],
    pretraining_metrics: dict[str, Any],
    seconds: dict[str, float],
) -> dict[str, Any]:
    """Collect all metrics of the run. All but `seconds` are reproducible with the same commit, seed and machine."""
    return {
        **out_of_the_box,
        "transfer": transfer_results["transfer"],
        "teachers": teacher_metrics,
        "tokenizers": tokenizer_metrics,
        "pretraining": pretraining_metrics,
        "seconds": seconds,
    }


def draw_gallery(
    any_to_any: AnyToAny, shards: ShardSet, labels: ShardSet, truth: ShardSet, evaluation: EvaluationConfig, seed: int
) -> tuple[dict[str, str], bytes]:
    """Return the sections of the report that show images, as HTML, and the gallery as one PNG."""
    data = EvaluationData(shards, labels, truth)
    gallery = collect_gallery(any_to_any, data, evaluation, seed)
    samples = load_samples(data, data.split, required_names(), evaluation.gallery_samples)
    return render_images(gallery, collect_decoders(any_to_any.tokenizers, samples)), gallery_png(gallery)


def write_page(
    metrics: dict[str, Any],
    gallery_sections: dict[str, str],
    transfer_results: dict[str, Any],
    pretraining_history: list[dict[str, float]],
) -> str:
    """Return the report, a self-contained HTML page."""
    facts = {
        "Parameters": f"{metrics['pretraining']['parameters'] / 1e6:.1f} M",
        "Samples seen": f"{metrics['pretraining']['samples']:,}",
        "Test samples": f"{metrics['samples']:,}",
    }
    return write_report(
        ReportData(
            metrics=metrics,
            sections=gallery_sections,
            transfer_tasks=transfer_results["tasks"],
            examples=transfer_results["examples"],
            history=pretraining_history,
            facts=facts,
        )
    )


def publish_model(any_to_any_folder: Path, metrics: dict[str, Any]) -> Path:
    """Pass the model folder to the registry, once its metrics are known."""
    assert metrics["out_of_the_box"]
    return any_to_any_folder
