"""The stages of a run as cards: what each did, in a few facts that depend on data and settings alone."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from fourfold.evaluation.report.definitions import component_metric, format_number, label_title
from fourfold.metrics.metric import Metric, find_metric

MAX_TASKS = 3


@dataclass(frozen=True)
class Fact:
    """One line of a card: a name, a value, and the metric that defines it, if it is one."""

    name: str
    value: str
    metric: Metric | None = None


@dataclass(frozen=True)
class StageCard:
    """One stage of the pipeline."""

    title: str
    text: str
    anchor: str = ""  # id of the section with more
    facts: list[Fact] = field(default_factory=list)


def stage_cards(
    metrics: Mapping[str, Any], ingestion: Mapping[str, Any], labels: Mapping[str, Any], transfer_tasks: Mapping[str, Any]
) -> list[StageCard]:
    """Return a card for every stage that has results, in the order of the pipeline.

    Args:
        metrics: content of metrics.json.
        ingestion: of `ingestion_report`.
        labels: of `integrate_labels`, counts by split.
        transfer_tasks: titles and metrics of the fine-tuning tasks.
    """
    cards = [
        StageCard("Ingestion", "reads, cleans and shards the images", "data", _ingestion(ingestion)),
        StageCard("Pseudo-labeling", "teachers label every image", "components", _labeling(metrics, labels)),
        StageCard("Tokenizer training", "every modality becomes tokens", "components", _tokenizers(metrics)),
        StageCard("Pretraining", "one transformer learns all of them", "learning", _pretraining(metrics)),
        StageCard("Fine-tuning", "transfer to tasks with few labels", "transfer", _transfer(metrics, transfer_tasks)),
        StageCard("Evaluation", "on images that the model never saw", "predictions", _evaluation(metrics)),
    ]
    return [card for card in cards if card.facts]


def _ingestion(report: Mapping[str, Any]) -> list[Fact]:
    if not report:
        return []
    kept = sum(report["kept"].values())
    facts = [Fact("samples", f"{kept:,} of {report['seen']:,}")]
    return facts + [Fact(split, f"{report['kept'][split]:,}") for split in ("train", "val", "test") if split in report["kept"]]


def _labeling(metrics: Mapping[str, Any], labels: Mapping[str, Any]) -> list[Fact]:
    facts = [Fact("labeled samples", f"{sum(counts.get('samples', 0) for counts in labels.values()):,}")] if labels else []
    boxes = sum(counts.get("boxes/kept", 0) for counts in labels.values())
    facts += [Fact("boxes kept", f"{boxes:,}")] if boxes else []
    return facts + _firsts(metrics.get("teachers") or {})


def _tokenizers(metrics: Mapping[str, Any]) -> list[Fact]:
    values = metrics.get("tokenizers") or {}
    use = [value for name, value in values.items() if name.endswith("/codebook_use")]
    if not use:
        return _firsts(values)
    metric = component_metric("", "codebook_use")
    return [
        Fact("smallest codebook use", f"{100 * min(use):.1f} %", metric),
        *_firsts(values, ("codebook_use", "perplexity", "cut")),
    ]


def _firsts(values: Mapping[str, float], without: tuple[str, ...] = ()) -> list[Fact]:
    """Return the main metric of each label of a table such as `{"depth/abs_rel": 0.02}`: the first in alphabetical order."""
    facts: dict[str, Fact] = {}
    for name, value in values.items():
        label, _, key = name.partition("/")
        if key and "/" not in key and key not in without and label not in facts:
            metric = component_metric(label, key)
            facts[label] = Fact(f"{label_title(label)}, {metric.title}", format_number(value), metric)
    return list(facts.values())


def _pretraining(metrics: Mapping[str, Any]) -> list[Fact]:
    trained = metrics.get("pretraining") or {}
    known = {"parameters": "parameters", "samples": "samples seen", "tokens": "tokens seen", "num_steps": "steps"}
    facts = [Fact(title, f"{trained[name]:,}") for name, title in known.items() if name in trained]
    if "validation/loss" in trained:
        loss = component_metric("", "cross_entropy")
        facts.append(Fact("validation loss", format_number(trained["validation/loss"]), loss))
    return facts


def _transfer(metrics: Mapping[str, Any], described: Mapping[str, Any]) -> list[Fact]:
    """Return the main metric of each task with the most labels, for the pretrained arm."""
    largest: dict[str, tuple[int, Mapping[str, Any]]] = {}
    for name, by_metric in (metrics.get("transfer") or {}).items():
        task, _, count = name.rpartition("_")
        if int(count) >= largest.get(task, (0, {}))[0]:
            largest[task] = (int(count), by_metric)
    facts = []
    for task, (count, by_metric) in list(largest.items())[:MAX_TASKS]:
        metrics_of = [Metric(**metric) for metric in described.get(task, {}).get("metrics", [])]
        name = metrics_of[0].name if metrics_of and metrics_of[0].name in by_metric else next(iter(by_metric))
        arms = by_metric[name]
        if "pretrained" in arms:
            title = described.get(task, {}).get("title", task)
            beside = f" (scratch {format_number(arms['scratch']['mean'])})" if "scratch" in arms else ""
            value = f"{format_number(arms['pretrained']['mean'])}{beside}"
            facts.append(Fact(f"{title}, {count} labels", value, find_metric(metrics_of, name)))
    return facts


def _evaluation(metrics: Mapping[str, Any]) -> list[Fact]:
    table = metrics.get("out_of_the_box") or {}
    facts = [Fact("test samples", f"{metrics['samples']:,}")] if "samples" in metrics else []
    facts += [Fact("predictions", f"{len(table)} pairs of input and target")] if table else []
    if "reference" in metrics:
        facts.append(Fact("reference", str(metrics["reference"])))
    return facts + ([Fact("benchmarks", ", ".join(metrics["benchmarks"]))] if metrics.get("benchmarks") else [])
