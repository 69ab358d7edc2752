"""Verbs of evaluation: judge, gather, report, publish."""

from pathlib import Path
from typing import Any

from fourfold.data.shards import ShardSet
from fourfold.evaluation.evaluate import EvaluationConfig, evaluate
from fourfold.evaluation.report.decoders import collect_decoders
from fourfold.evaluation.report.gallery import collect_gallery, gallery_png
from fourfold.evaluation.report.page import write_report
from fourfold.evaluation.samples import load_samples
from fourfold.generation.any_to_any import AnyToAny
from fourfold.labelers.teachers import TeacherSet


def judge_model(
    any_to_any: AnyToAny,
    teachers: TeacherSet,
    shards: ShardSet,
    labels: ShardSet,
    truth: ShardSet,
    evaluation: EvaluationConfig,
    seed: int,
) -> dict[str, Any]:
    """Compare the model's predictions on test with the truth. The only reader of test."""
    return evaluate(any_to_any, teachers.image_text_encoder("mini_clip"), shards, labels, truth, "test", evaluation, seed)


def gather_metrics(
    out_of_the_box: dict[str, Any],
    transfer_results: dict[str, Any],
    teacher_metrics: dict[str, float],
    tokenizer_metrics: dict[str, float],
    pretraining_metrics: dict[str, Any],
    seconds: dict[str, float],
) -> dict[str, Any]:
    """Bring every figure of the run into one file. All but `seconds` is the same for the same commit, seed and machine."""
    return {
        **out_of_the_box,
        "transfer": transfer_results["transfer"],
        "teachers": teacher_metrics,
        "tokenizers": tokenizer_metrics,
        "pretraining": pretraining_metrics,
        "seconds": seconds,
    }


def write_pages(
    any_to_any: AnyToAny,
    shards: ShardSet,
    labels: ShardSet,
    truth: ShardSet,
    metrics: dict[str, Any],
    transfer_results: dict[str, Any],
    pretraining_history: list[dict[str, float]],
    evaluation: EvaluationConfig,
    seed: int,
) -> tuple[str, bytes]:
    """Return the report (self-contained HTML) and its gallery as one picture (PNG)."""
    gallery = collect_gallery(any_to_any, shards, labels, truth, "test", evaluation, seed)
    facts = {
        "Parameters": f"{metrics['pretraining']['parameters'] / 1e6:.1f} M",
        "Samples seen": f"{metrics['pretraining']['samples']:,}",
        "Test samples": f"{metrics['samples']:,}",
    }
    samples = load_samples(shards, labels, truth, "test", evaluation.gallery_samples)
    decoders = collect_decoders(any_to_any.tokenizers, samples)
    page = write_report(metrics, gallery, transfer_results["examples"], pretraining_history, facts, decoders)
    return page, gallery_png(gallery)


def publish_model(any_to_any_folder: Path, metrics: dict[str, Any]) -> Path:
    """Hand the model folder to the registry, now that its figures are known."""
    assert metrics["out_of_the_box"]
    return any_to_any_folder
