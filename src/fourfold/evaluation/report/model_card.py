"""The model card: what the model is, what it was made from, how good it is and where it fails, as Markdown for people.

The headings follow Mitchell et al. 2019 (Model Cards for Model Reporting, arXiv 1810.03993).
"""

from collections.abc import Mapping, Sequence
from typing import Any

from fourfold.evaluation.report.definitions import format_number, pair_title
from fourfold.evaluation.tasks import pair_metrics
from fourfold.metrics.metric import find_metric

USE = """\
```python
from pathlib import Path
from fourfold.generation.any_to_any import AnyToAny

model = AnyToAny.load(Path("data/04_models/any_to_any"))
model.predict({"caption": ["a red sphere"]}, ["rgb"])
```"""


def model_card(metrics: Mapping[str, Any], ingestion: Mapping[str, Any], notice: str = "") -> str:
    """Return the model card of an evaluated model; equal arguments give equal text.

    Args:
        metrics: content of metrics.json.
        ingestion: of `ingestion_report`.
        notice: what a reader must know before everything else.
    """
    parts = [
        "# Model card",
        *([f"> {notice}"] if notice else []),
        "## Model",
        _model(metrics),
        "## Use",
        USE,
        "Inputs are any subset of the modalities, outputs any of them. Images of another kind than the training data are not "
        "measured here.",
        "## Training data",
        _data(ingestion),
        "## Results",
        _reference(metrics),
        _results(metrics.get("out_of_the_box", {})),
        "## Limits",
        _limits(metrics),
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def _model(metrics: Mapping[str, Any]) -> str:
    text = "An encoder-decoder transformer that predicts any modality from any other (4M, arXiv 2312.06647)."
    trained = metrics.get("pretraining") or {}
    known = {"parameters": "parameters", "samples": "training samples seen", "tokens": "tokens seen", "num_steps": "steps"}
    lines = [f"- {trained[name]:,} {title}" for name, title in known.items() if name in trained]
    if "validation/loss" in trained:
        lines.append(f"- validation loss: {format_number(trained['validation/loss'])} nats per token")
    about = metrics.get("about") or {}
    lines += [f"- digest of the {name}: `{about[name][:16]}`" for name in ("model", "tokenizers", "teachers") if name in about]
    return "\n".join([text, "", *lines]) if lines else text


def _data(report: Mapping[str, Any]) -> str:
    if not report:
        return "Not recorded."
    splits = ", ".join(f"{split} {count:,}" for split, count in report["kept"].items())
    kept = sum(report["kept"].values())
    return f"{kept:,} of {report['seen']:,} samples were kept ({splits}). See `data/01_raw/data_card.md`."


def _reference(metrics: Mapping[str, Any]) -> str:
    if "samples" not in metrics:
        return ""
    return (
        f"On {metrics['samples']:,} test samples, against {metrics.get('reference', 'exact truth')}, without fine-tuning. "
        "Intervals are 95 % bootstrap intervals; *trivial* is the best answer that ignores the input."
    )


def _results(table: Mapping[str, Mapping[str, Any]]) -> str:
    rows = []
    for pair, entries in table.items():
        for key, entry in entries.items():
            metric = find_metric(pair_metrics(pair), key)
            arrow = "↓" if metric.lower_is_better else "↑"
            interval = " to ".join(map(format_number, entry["ci95"])) if entry.get("ci95") else "–"
            numbers = [format_number(entry.get(column)) for column in ("value", "teacher", "trivial", "shuffled")]
            rows.append((pair_title(pair), f"{metric.title} {arrow}", numbers[0], interval, *numbers[1:]))
    header = ("Task", "Metric", "Model", "Interval", "Teacher", "Trivial", "Shuffled inputs")
    return _table(header, rows) if rows else "Not evaluated."


def _limits(metrics: Mapping[str, Any]) -> str:
    lines = [f"- {sentence}" for sentence in metrics.get("left_out", [])]
    for pair, entries in metrics.get("out_of_the_box", {}).items():
        for key, entry in entries.items():
            metric = find_metric(pair_metrics(pair), key)
            value, trivial = entry["value"], entry.get("trivial")
            if trivial is not None and (value >= trivial if metric.lower_is_better else value <= trivial):
                lines.append(f"- {pair_title(pair)}, {metric.title}: not better than the trivial answer.")
    return "\n".join([*lines, "- The report shows the test samples that are predicted worst."])


def _table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)
