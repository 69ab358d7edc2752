"""Nodes of evaluation: score, gather, report, publish."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fourfold.data.shards import ShardSet
from fourfold.evaluation.benchmarks import evaluate_benchmarks
from fourfold.evaluation.config import EvaluationConfig
from fourfold.evaluation.evaluate import evaluate, required_names
from fourfold.evaluation.lineage import ABOUT, KINDS, of_evaluated
from fourfold.evaluation.paired import PairedScores
from fourfold.evaluation.report.decoders import collect_decoders
from fourfold.evaluation.report.gallery import collect_gallery, gallery_png
from fourfold.evaluation.report.model_card import model_card
from fourfold.evaluation.report.page import ReportData, render_images, write_report
from fourfold.evaluation.samples import EvaluationData, load_samples
from fourfold.evaluation.worst import WorstCases
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
) -> tuple[dict[str, Any], dict[str, Any], dict[str, Any]]:
    """Compare the model's predictions on the test split with the truth. Nothing else reads the test split.

    Returns:
        The table of metrics, their replicates for comparisons with other models, and the samples that are predicted worst.
    """
    encoder = teachers.image_text_encoder(evaluation.text_encoder) if evaluation.text_encoder else None
    paired = PairedScores(evaluation.replicates, teachers.digest())
    worst = WorstCases()
    titles = {labeler.modality: labeler.title for labeler in teachers.labelers()}
    data = EvaluationData(shards, labels, truth)
    table = evaluate(any_to_any, encoder, data, evaluation, seed, paired=paired, worst=worst, labelers=titles)
    benchmarks = evaluate_benchmarks(any_to_any, encoder, evaluation, seed)
    digests = any_to_any.digests()
    table["model"] = digests["model"]
    table[ABOUT] = {**digests, "teachers": teachers.digest(), "labels": labels.digest()}
    table |= {"released": any_to_any.provenance["files"]} if any_to_any.provenance else {}
    return table | ({"benchmarks": benchmarks} if benchmarks else {}), paired.evidence(digests["model"]), worst.by_pair


def gather_metrics(
    out_of_the_box: dict[str, Any],
    transfer_results: dict[str, Any],
    teacher_metrics: dict[str, Any],
    tokenizer_metrics: dict[str, Any],
    pretraining_metrics: dict[str, Any],
) -> dict[str, Any]:
    """Collect all metrics of the model; they are reproducible with the same commit, seed and machine.

    Results of another model, other tokenizers or labels are left out, and named under `left_out`; so are tasks that do not fit
    the model.
    """
    stored = {
        "transfer": transfer_results,
        "teachers": teacher_metrics,
        "tokenizers": tokenizer_metrics,
        "pretraining": pretraining_metrics,
    }
    table = dict(out_of_the_box)
    kept, left_out = of_evaluated(stored, table[ABOUT], is_imported="released" in table)
    left_out += [f"{name} is left out, because {reason}." for name, reason in table.pop("misfits", {}).items()]
    kept["transfer"] = kept["transfer"].get("transfer", {})
    return {**table, **kept, **({"left_out": left_out} if left_out else {})}


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
    worst_cases: dict[str, Any],
    transfer_results: dict[str, Any],
    pretraining_history: list[dict[str, float]],
    teacher_history: dict[str, list[dict[str, float]]],
    tokenizer_history: dict[str, list[dict[str, float]]],
    ingestion_report: dict[str, Any],
    label_report: dict[str, Any],
    evaluation: EvaluationConfig,
) -> str:
    """Return the report, a self-contained HTML page. It depends on data and settings alone, not on the run."""
    trained, is_transfer_known = metrics["pretraining"], bool(metrics["transfer"])
    facts = {"Parameters": f"{trained['parameters'] / 1e6:.1f} M", "Samples seen": f"{trained['samples']:,}"} if trained else {}
    incomplete = metrics.get("samples_without_a_label", 0)
    without = f" ({incomplete:,} more lack a label)" if incomplete else ""
    facts["Test samples"] = f"{metrics['samples']:,}{without}"
    return write_report(
        ReportData(
            metrics=metrics,
            sections=gallery_sections,
            worst=worst_cases,
            transfer_tasks=transfer_results["tasks"] if is_transfer_known else {},
            examples=transfer_results["examples"] if is_transfer_known else [],
            history=pretraining_history if trained else [],
            component_histories={
                "Teachers": teacher_history if metrics["teachers"] else {},
                "Tokenizers": tokenizer_history if metrics["tokenizers"] else {},
            },
            facts=facts,
            left_out=metrics.get("left_out", []),
            ingestion=ingestion_report,
            skipped=_skipped(metrics, transfer_results),
            labels=_of_evaluated(label_report, metrics),
            notice=evaluation.notice,
        )
    )


def _of_evaluated(label_report: dict[str, Any], metrics: dict[str, Any]) -> dict[str, Any]:
    """Return the report of the labels; nothing if other labels are evaluated, as the teacher metrics tell."""
    is_other = any(KINDS["teachers"].title in sentence for sentence in metrics.get("left_out", []))
    return {} if is_other else label_report


def _skipped(metrics: dict[str, Any], transfer_results: dict[str, Any]) -> list[str]:
    """Return what a reader may look for and was not computed, as sentences; none where the source has exact truth."""
    left_out = ", ".join(metrics.get("modalities_left_out", []))
    sentences = [f"Modalities without a labeler are left out: {left_out}."] if left_out else []
    sentences += [f"Fine-tuning task {name} is skipped: {why}." for name, why in transfer_results.get("skipped", {}).items()]
    return sentences


def write_model_card(metrics: dict[str, Any], ingestion_report: dict[str, Any], evaluation: EvaluationConfig) -> str:
    """Return the model card as Markdown."""
    return model_card(metrics, ingestion_report, evaluation.notice)


@dataclass(frozen=True)
class Publication:
    """What the registry gets: the model folder, and what a later promotion of the model is judged by."""

    folder: Path
    evidence: dict[str, Any]


def publish_model(
    any_to_any_folder: Path,
    any_to_any: AnyToAny,
    metrics: dict[str, Any],
    paired_replicates: dict[str, Any],
    report: str,
    card: str,
) -> Publication:
    """Pass the model folder to the registry, once its metrics, report and model card are written.

    Raises:
        ValueError: the metrics or the replicates are about another model than the one in the folder.
    """
    assert metrics["out_of_the_box"] and report and card
    found = any_to_any.digest()
    for name, about in (("metrics", metrics["model"]), ("replicates", paired_replicates["subject"])):
        if about != found:
            raise ValueError(
                f"The {name} are about model {about[:8]}, and the folder has model {found[:8]}: it is not published. "
                "Run the whole evaluation with `kedro run --pipelines=evaluation`."
            )
    return Publication(any_to_any_folder, paired_replicates)
